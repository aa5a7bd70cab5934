/** The view *Run code* as tests use it: its controls, what is on its terminal, and a stand-in for the stream of a run. */
import { see } from "./use.mjs";

export const code = (page) => page.getByRole("textbox", { name: "Code" });
export const run = (page) => page.getByRole("button", { name: "Run", exact: true });
export const terminal = (page) => page.getByRole("textbox", { name: "Terminal" });
export const verdict = (page) => page.getByRole("group", { name: "Verdict" });

/** Until the editor and the terminal, which come later than the page, are there. */
export async function bench(page) {
  await see(code(page));
  await terminal(page).waitFor({ state: "attached" });
  return page;
}

/** In place of what there is, as somebody at a keyboard would. */
export async function write(page, text) {
  await code(page).focus();
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await page.keyboard.insertText(text);
}

/** Waits until the terminal shows it, rows as they are seen; blanks at their ends are not. */
export async function shows(page, text) {
  await page.waitForFunction((wanted) => {
    const rows = [...document.querySelectorAll(".xterm-rows > div")].map((row) => row.textContent.replaceAll("\u00a0", " ").trimEnd());
    return rows.join("\n").includes(wanted);
  }, text);
}

export async function openOptions(page) {
  await page.getByText("Arguments and limits").click();
}

const HEAD_BYTES = 9;

/** Answers the page's sockets in place of a server. Each is given to `meet` with what the page says on it, in order. */
export async function stand(page, meet) {
  await page.routeWebSocket(/\/v1\/runs\/stream$/, (socket) => {
    const waiting = [];
    let wanted;
    socket.onMessage((message) => {
      const said = typeof message === "string" ? JSON.parse(message) : { input: message.subarray(HEAD_BYTES).toString(), sequence: Number(message.readBigUInt64BE(0)) };
      if (wanted) wanted(said);
      else waiting.push(said);
      wanted = undefined;
    });
    meet({
      heard: () => (waiting.length > 0 ? Promise.resolve(waiting.shift()) : new Promise((resolve) => (wanted = resolve))),
      tell: (word) => socket.send(JSON.stringify(word)),
      write(sequence, channel, text) {
        const bytes = Buffer.alloc(HEAD_BYTES);
        bytes.writeBigUInt64BE(BigInt(sequence));
        bytes[8] = channel;
        socket.send(Buffer.concat([bytes, Buffer.from(text)]));
      },
      break: () => socket.close({ code: 1012 }),
    });
  });
}

export const ended = (sequence, more = {}) => ({
  ended: { verdict: "finished", message: "it ended by itself", exit_code: 0, signal: null, sequence, cpu_usec: 14_210, memory_peak_bytes: 8_601_600, output_bytes: 12, times: { queue_usec: 310, box_usec: 240, compile_usec: 0, run_usec: 16_012 }, ...more },
});
export const accepted = { accepted: { id: "r1", node: "n1", worker: 2, language: "python" } };
