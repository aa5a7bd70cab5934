/**
 * Code that runs: the page that is built here against a running `bramble up`, over streams that a test can break.
 * `BRAMBLE_URL` and `BRAMBLE_TOKEN` say where it is, else this is skipped. The machine has Python, C's compiler and a shell.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { bench, code, openOptions, run, shows, terminal, verdict, write } from "./bed/bench.mjs";
import { launch, open } from "./bed/browser.mjs";
import { front } from "./bed/front.mjs";
import { go, gone, see } from "./bed/use.mjs";

const { BRAMBLE_URL: url, BRAMBLE_TOKEN: token } = process.env;
const skip = url && token ? false : "BRAMBLE_URL and BRAMBLE_TOKEN are not set";
/** The first run of a language waits until it is copied; Rust's compiler is the largest. */
const first = { timeout: 120_000 };

let browser;
let door;
let page;

before(async () => {
  if (skip) return;
  browser = await launch();
  door = await front(url);
});
beforeEach(async () => {
  if (skip) return;
  page = await open(browser);
  await page.goto(`${door.url}/#token=${token}`);
  await page.getByText("Live", { exact: true }).waitFor({ state: "attached" });
  await go(page, "run");
  await bench(page);
});
afterEach(async () => {
  if (skip) return;
  const { troubles } = page;
  await page.context().close();
  assert.deepEqual(troubles, [], "the page logged errors");
});
after(async () => {
  await browser?.close();
  await door?.close();
});

const language = (name) => page.getByRole("combobox", { name: "Language" }).selectOption(name);
const ends = (word) => verdict(page).getByText(word, { exact: true }).waitFor(first);
const runs = () => page.getByText("Running…").waitFor(first);
const record = async (id) => (await fetch(new URL(`/v1/runs/${id}`, url), { headers: { authorization: `Bearer ${token}` } })).json();

test("a program asks, is answered, and ends", { skip }, async () => {
  await write(page, 'import sys\nname = input("Name? ")\nprint(f"Hello, {name}! äöü €")\nprint("oh", file=sys.stderr)\nprint(sys.argv[1:])\nsys.exit(3)\n');
  await openOptions(page);
  await page.getByLabel("Arguments", { exact: true }).fill("a 'b c'");
  await page.keyboard.press("Control+Enter");
  await page.waitForFunction(() => document.querySelector(".xterm-rows").textContent.includes("Name?"), undefined, first);
  await page.keyboard.type("Zoë\n");
  await ends("failed");
  // Two pipes: which of them is heard first is anybody's guess.
  for (const said of ["Name? Zoë", "Hello, Zoë! äöü €", "oh"]) await shows(page, said);
  await shows(page, "['a', 'b c']");
  await see(verdict(page).locator("dl > div", { hasText: "Exit code3" }));
});

test("letters that blocks cut in two are shown whole", { skip }, async () => {
  await write(page, 'import sys, time\nfor byte in "é€👍\\n".encode():\n    sys.stdout.buffer.write(bytes([byte])); sys.stdout.flush(); time.sleep(0.02)\n');
  await run(page).click();
  await ends("finished");
  await shows(page, "é€👍");
});

test("one that never ends is interrupted, or killed", { skip }, async () => {
  await write(page, 'import time\ntry:\n    print("begun")\n    while True: time.sleep(0.1)\nexcept KeyboardInterrupt: print("caught")\nwhile True: pass\n');
  await run(page).click();
  await shows(page, "begun");
  await page.keyboard.press("Control+c");
  await shows(page, "caught");
  await page.getByRole("button", { name: "Kill" }).click();
  await ends("killed");
  assert.ok(await run(page).isEnabled());
});

test("the end of input is told, and time that is up", { skip }, async () => {
  await write(page, 'import sys\nprint(len(sys.stdin.read()))\nwhile True: pass\n');
  await openOptions(page);
  await page.getByLabel("Time, s").fill("1.5");
  await run(page).click();
  await runs();
  await page.keyboard.type("1234");
  await page.getByRole("button", { name: "End input" }).click();
  await ends("out of time");
  await shows(page, "\n4");
});

test("what a compiler says is seen, and so are several files", { skip }, async () => {
  await language("c");
  await write(page, "int main(void) { return nothing; }");
  await run(page).click();
  await ends("not compiled");
  await shows(page, "nothing");
  await write(page, '#include "words.h"\n#include <stdio.h>\nint main(void) { puts(WORDS); return 0; }');
  await page.getByRole("button", { name: "Add a file" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("words.h");
  await page.keyboard.press("Enter");
  await write(page, '#define WORDS "from another file"');
  await run(page).click();
  await ends("finished");
  await shows(page, "from another file");
});

test("a terminal of its own has a size that follows, and raw keys", { skip }, async () => {
  await write(page, 'import os, signal, sys, tty\ndef size(*_): print("size", os.get_terminal_size().lines, flush=True)\nsignal.signal(signal.SIGWINCH, size)\nsize()\ntty.setcbreak(0)\nkey = None\nwhile key != b"q":\n    key = os.read(0, 1)\n    print("key", key, flush=True)\n');
  await openOptions(page);
  await page.getByRole("checkbox", { name: /^Terminal/ }).check();
  await run(page).click();
  await shows(page, "size");
  const rows = await page.locator(".xterm-rows > div").count();
  await shows(page, `size ${rows}`);
  await page.keyboard.press("x");
  await shows(page, "key b'x'");
  await page.setViewportSize({ width: 1360, height: 700 });
  await page.waitForFunction((before) => document.querySelectorAll(".xterm-rows > div").length < before, rows);
  await shows(page, `size ${await page.locator(".xterm-rows > div").count()}`);
  await page.keyboard.press("q");
  await ends("finished");
});

test("a stream that breaks is taken up, and nothing is lost either way", { skip }, async () => {
  await write(page, 'import time\nfor at in range(40):\n    print("line", at, flush=True); time.sleep(0.05)\nprint("got", input())\n');
  await run(page).click();
  await shows(page, "line 5");
  door.cut();
  await see(page.getByText("reconnecting"));
  await page.keyboard.type("typed meanwhile\n");
  await gone(page.getByText("reconnecting"));
  await ends("finished");
  await shows(page, "got typed meanwhile");
  const seen = await page.evaluate(() => document.querySelector(".xterm-rows").textContent.match(/line \d+/g).length);
  const rows = await page.locator(".xterm-rows > div").count();
  assert.ok(seen >= Math.min(40, rows - 3), `${seen} lines of ${rows} rows`);
});

test("a run that may go on is there again after a reload, with what it said", { skip }, async () => {
  await write(page, 'print("begun", flush=True)\nprint("answered", input())\nprint("more", input())\n');
  await openOptions(page);
  await page.getByRole("checkbox", { name: /^Keep running/ }).check();
  await run(page).click();
  await shows(page, "begun");
  await page.keyboard.type("one\n");
  await shows(page, "answered one");
  await page.waitForURL(/#\/run\/\w+$/);
  await page.reload();
  await bench(page);
  await shows(page, "begun\nanswered one");
  await go(page, "nodes");
  await go(page, "run");
  await bench(page);
  await shows(page, "answered one");
  await terminal(page).focus();
  await page.keyboard.type("two\n");
  await ends("finished");
  await shows(page, "more two");
  assert.match(page.url(), /#\/run$/);
});

for (const [how, leave] of [["for another place", () => go(page, "nodes")], ["by a reload", () => page.reload()], ["with its tab", () => page.close()]]) {
  test(`one that may not is killed when the page goes ${how}`, { skip }, async () => {
    const begun = new Promise((resolve) => {
      page.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => {
        const { accepted } = typeof payload === "string" ? JSON.parse(payload) : {};
        if (accepted) resolve(accepted.id);
      }));
    });
    await write(page, "while True: pass\n");
    await run(page).click();
    await runs();
    await leave();
    const id = await begun;
    const deadline = performance.now() + 10_000;
    while ((await record(id)).verdict !== "killed") assert.ok(performance.now() < deadline, "it still runs");
  });
}

test("a program that writes faster than the page shows it waits for the page", { skip }, async () => {
  const head = 9;
  let [far, arrived, shown, acks] = [0, 0, 0, 0];
  const at = new Map();
  page.on("websocket", (socket) => {
    socket.on("framereceived", ({ payload }) => {
      if (typeof payload === "string") return;
      arrived += payload.length - head;
      at.set(Number(payload.readBigUInt64BE(0)), arrived);
      far = Math.max(far, arrived - shown);
    });
    socket.on("framesent", ({ payload }) => {
      const { ack } = typeof payload === "string" ? JSON.parse(payload) : {};
      if (ack === undefined) return;
      acks += 1;
      shown = at.get(ack) ?? arrived;
    });
  });
  await write(page, 'import sys\nline = b"x" * 999 + b"\\n"\nfor _ in range(20_000): sys.stdout.buffer.write(line)\nprint("the end")\n');
  await run(page).click();
  await ends("finished");
  await shows(page, "the end");
  await see(verdict(page).locator("dl > div", { hasText: "Output19.1 MiB" }));
  // What the worker keeps, and the one read that it does not cut.
  assert.ok(far < (1 << 20) + (256 << 10), `${far} bytes were not acknowledged`);
  assert.ok(acks > 100 && acks < 400, `${acks} acknowledgements`);
});
