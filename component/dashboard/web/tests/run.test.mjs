/** Code that is written, run and talked with, against a stand-in for the stream. `real-run` goes the whole way. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { audit } from "./bed/audit.mjs";
import { accepted, bench, code, ended, openOptions, run, shows, stand, terminal, verdict, write } from "./bed/bench.mjs";
import { go, gone, see, use } from "./bed/use.mjs";

const t = use();
const language = (page) => page.getByRole("combobox", { name: "Language" });
const files = (page) => page.getByRole("group", { name: "Files" });
const STDOUT = 1;
const STDERR = 2;
const COMPILER = 3;

/** The view, and the sockets it opened; `say` tells each how it is met. */
async function visit(meet, options = {}) {
  const page = await t.visit("", { ...options, prepare: (opened) => stand(opened, meet) });
  await go(page, "run");
  return bench(page);
}
const nobody = () => assert.fail("nothing is run by itself");

test("the example of a language is there to begin with, and makes place for another one", async () => {
  const page = await visit(nobody);
  await see(code(page).getByText("What is your name?"));
  assert.equal(await language(page).inputValue(), "python");
  assert.ok(await language(page).getByRole("option", { name: "Go: /usr/bin/go is not there" }).isDisabled());
  await see(page.getByText("Version Python 3 1.2"));
  await language(page).selectOption("c");
  await see(code(page).getByText("int main(void)"));
  await see(files(page).getByRole("button", { name: "main.c" }));
  await write(page, "mine");
  await language(page).selectOption("python");
  assert.equal(await code(page).innerText(), "mine", "what was written stays");
});

test("a run is asked for with all that was chosen, and told from its beginning to its end", async () => {
  const said = [];
  const page = await visit(async ({ heard, tell, write: block }) => {
    said.push(await heard());
    tell({ queued: { before: 2 } });
    tell({ preparing: "copying Python 3 from this machine" });
    tell(accepted);
    tell({ phase: "compiling" });
    block(1, COMPILER, "a warning\n");
    tell({ phase: "running" });
    block(2, STDOUT, "out\nWho? ");
    said.push(await heard());
    tell({ taken: 1 });
    block(3, STDERR, "err\n");
    tell(ended(4, { verdict: "wrong_exit", message: "it ended with exit code 3", exit_code: 3 }));
    said.push(await heard());
  });
  await openOptions(page);
  await page.getByLabel("Arguments", { exact: true }).fill("one 'two three'");
  await page.getByLabel("Time, s").fill("2.5");
  await page.getByLabel("Memory, MiB").fill("64");
  await write(page, "print(1)");
  await page.keyboard.press("Control+Enter");
  await shows(page, "Who?");
  await page.keyboard.type("mex");
  await page.keyboard.press("Backspace");
  await page.keyboard.press("Enter");
  await see(verdict(page).getByText("it ended with exit code 3"));
  for (const taken of ["Exit code3", "CPU14 ms", "Memory8.2 MiB", "Wall17 ms", "Queue310 µs", "Box240 µs", "Compile0 s", "Run16 ms"]) await see(verdict(page).locator("dl > div", { hasText: taken }));
  await shows(page, "a warning\nout\nWho? me\nerr");
  assert.deepEqual(said, [
    { run: { language: "python", files: [{ name: "main.py", content: "print(1)" }], args: ["one", "two three"], limits: { cpu_ms: 2500, wall_ms: 2500, memory_bytes: 64 << 20 }, detach: false } },
    { input: "me\n", sequence: 1 },
    { ack: 4 },
  ]);
  const look = (text) => page.locator(".xterm-rows span", { hasText: text }).first().evaluate((span) => [getComputedStyle(span).fontStyle, getComputedStyle(span).fontWeight, getComputedStyle(span).color]);
  const [out, err, compiler] = [await look("out"), await look("err"), await look("a warning")];
  assert.deepEqual([out[0], err[0], compiler[1]], ["normal", "italic", "700"]);
  assert.equal(new Set([out[2], err[2], compiler[2]]).size, 3);
  await see(page.getByRole("log", { name: "Output" }).getByText("Errors: err"));
});

test("one that is asked for before it is known what there is begins as soon as it is", async () => {
  const answers = [];
  const prepare = async (opened) => {
    await stand(opened, async ({ heard, tell }) => {
      assert.equal((await heard()).run.files[0].content, "print(2)");
      tell(accepted);
      tell({ phase: "running" });
    });
    await opened.route(/\/v1\/languages$/, (asked) => void answers.push(() => asked.continue()));
  };
  const page = await t.visit("", { prepare });
  await go(page, "run");
  await bench(page);
  await write(page, "print(2)");
  await page.keyboard.press("Control+Enter");
  assert.equal(await run(page).getAttribute("aria-busy"), "true");
  for (const answer of answers) await answer();
  await see(page.getByText("Running…"));
});

test("a terminal of its own gets each key and the size, and Shift+Tab leaves it", async () => {
  const said = [];
  const page = await visit(async ({ heard, tell, write: block }) => {
    said.push(await heard());
    tell(accepted);
    tell({ phase: "running" });
    block(1, STDOUT, "\u001b[38;2;200;0;0mred\u001b[0m\r\n$ ");
    for (;;) said.push(await heard());
  });
  await openOptions(page);
  await page.getByRole("checkbox", { name: /^Terminal/ }).check();
  await run(page).click();
  await shows(page, "$");
  const colour = await page.locator(".xterm-rows span", { hasText: "red" }).evaluate((span) => getComputedStyle(span).color);
  assert.equal(colour, "rgb(200, 0, 0)");
  assert.deepEqual(await audit(page), [], "while a program has the terminal");
  await page.keyboard.press("a");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Control+c");
  await page.setViewportSize({ width: 1000, height: 700 });
  await page.waitForFunction(() => document.querySelector(".xterm-rows").children.length < 30);
  await page.keyboard.press("Shift+Tab");
  assert.ok(!(await terminal(page).evaluate((one) => one === document.activeElement)));
  await page.getByRole("button", { name: "Kill" }).click();
  while (!said.some(({ signal }) => signal === "KILL")) await page.evaluate(() => new Promise(requestAnimationFrame));
  const { columns, rows } = said[0].run.terminal;
  assert.ok(columns > 20 && rows > 10);
  assert.deepEqual(said.filter(({ input }) => input).map(({ input }) => input), ["a", "\t", "\u0003"]);
  assert.ok(said.some(({ resize }) => resize?.rows < rows));
});

test("Ctrl C interrupts, Ctrl D ends the input", async () => {
  const said = [];
  const page = await visit(async ({ heard, tell }) => {
    said.push(await heard());
    tell(accepted);
    tell({ phase: "running" });
    while (said.length < 4) said.push(await heard());
    tell(ended(1));
  });
  await run(page).click();
  await see(page.getByText("Running…"));
  await page.keyboard.press("Control+c");
  await page.keyboard.type("rest");
  await page.keyboard.press("Control+d");
  await see(verdict(page));
  assert.deepEqual(said.slice(1), [{ signal: "INT" }, { input: "rest", sequence: 1 }, { input: "", sequence: 2 }]);
});

test("a stream that breaks is taken up again, and it is seen that it was", async () => {
  const sockets = [];
  const page = await visit((socket) => void sockets.push(socket));
  await run(page).click();
  await page.waitForFunction(() => document.body.innerText.includes("Connecting…"));
  const [first] = sockets;
  await first.heard();
  first.tell(accepted);
  first.tell({ phase: "running" });
  first.write(1, STDOUT, "one\n");
  await shows(page, "one");
  first.break();
  await see(page.getByText("reconnecting"));
  while (sockets.length < 2) await page.evaluate(() => new Promise(requestAnimationFrame));
  const second = sockets[1];
  assert.deepEqual(await second.heard(), { attach: { id: "r1", after: 1 } });
  second.tell(accepted);
  second.tell({ taken: 0 });
  second.tell({ phase: "running" });
  await gone(page.getByText("reconnecting"));
  second.write(1, STDOUT, "one\n");
  second.write(2, STDOUT, "two\n");
  second.tell(ended(3));
  await shows(page, "one\ntwo");
  await see(verdict(page).getByText("finished"));
});

test("what cannot be run is said with its reason", async () => {
  const page = await visit(async ({ heard, tell }) => {
    await heard();
    tell({ problem: { code: "B0902", message: "no machine has room", hint: "try again later" } });
  });
  await run(page).click();
  await see(page.getByRole("alert").getByText("Not run: no machine has room"));
  assert.ok(await run(page).isEnabled());
});

test("one that waits for room is let go", async () => {
  const page = await visit(async ({ heard, tell }) => {
    await heard();
    tell({ queued: { before: 3 } });
  });
  await run(page).click();
  await see(page.getByText("3 runs before this one."));
  await page.getByRole("button", { name: "Kill" }).click();
  await shows(page, "[not run]");
  assert.ok(await run(page).isEnabled());
});

test("a run that nobody knows any more is not asked for twice", async () => {
  let asked = 0;
  const page = await visit(async ({ heard, tell }) => {
    asked += 1;
    assert.deepEqual(await heard(), { attach: { id: "gone", after: 0 } });
    tell({ problem: { code: "B0903", message: "no such run", hint: "" } });
  });
  await page.evaluate(() => sessionStorage.setItem("bramble.run.on", JSON.stringify({ id: "gone", terminal: false, inputEnded: false })));
  await go(page, "run/gone");
  await see(page.getByRole("alert").getByText("Not watched again: no such run"));
  await go(page, "nodes");
  await go(page, "run");
  await bench(page);
  assert.equal(asked, 1);
});

test("files are added, renamed and removed, each with its own text", async () => {
  const page = await visit(nobody);
  await page.getByRole("button", { name: "Add a file" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("main.py");
  await see(page.getByText("Another file has this name."));
  assert.ok(await page.getByRole("button", { name: "Add", exact: true }).isDisabled());
  await page.getByRole("dialog").getByLabel("Name").fill("words.py");
  await page.keyboard.press("Enter");
  await write(page, "hello = 1");
  await files(page).getByRole("button", { name: /main\.py/ }).click();
  await see(code(page).getByText("What is your name?"));
  await files(page).getByRole("button", { name: "words.py" }).click();
  assert.equal(await code(page).innerText(), "hello = 1");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("more/words.py");
  await page.keyboard.press("Enter");
  await see(files(page).getByRole("button", { name: "more/words.py" }));
  await page.keyboard.press("Control+z");
  assert.notEqual(await code(page).innerText(), "hello = 1", "a renamed file keeps what can be undone");
  await page.getByRole("button", { name: "Remove" }).click();
  await gone(files(page).getByRole("button", { name: "more/words.py" }));
  await see(code(page).getByText("What is your name?"));
  assert.ok(await page.getByRole("button", { name: "Remove" }).isDisabled());
});

test("code goes by link to somebody else, who sees it before it runs", async () => {
  const page = await visit(nobody, { permissions: ["clipboard-read", "clipboard-write"] });
  await write(page, "print('für dich 👍')\n");
  await openOptions(page);
  await page.getByLabel("Arguments", { exact: true }).fill("a b");
  await page.getByRole("button", { name: "Share" }).click();
  await see(page.getByText("The link is copied."));
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(await page.getByLabel("Link to this code").inputValue(), link);
  const other = await t.visit("", { prepare: (opened) => stand(opened, nobody) });
  await other.goto(link);
  await bench(other);
  await see(code(other).getByText("für dich 👍"));
  await openOptions(other);
  assert.equal(await other.getByLabel("Arguments", { exact: true }).inputValue(), "a b");
  assert.match(other.url(), /#\/run$/);
  await go(other, "run/from/broken");
  await see(other.getByText("The link is not whole"));
});

test("what is being written survives a look elsewhere and a reload", async () => {
  const page = await visit(nobody);
  await write(page, "precious");
  await go(page, "nodes");
  await go(page, "run");
  await bench(page);
  assert.equal(await code(page).innerText(), "precious");
  await page.reload();
  await bench(page);
  assert.equal(await code(page).innerText(), "precious");
});

test("letters typed into the editor are only letters, and the keyboard gets out of it", async () => {
  const page = await visit(nobody);
  await write(page, "");
  await page.keyboard.type("gs/?");
  assert.equal(await code(page).innerText(), "gs/?");
  assert.equal(await page.getByRole("dialog").count(), 0);
  await page.keyboard.press("Escape");
  await page.keyboard.press("Tab");
  assert.ok(await terminal(page).evaluate((one) => one === document.activeElement));
  await page.keyboard.press("Tab");
  assert.ok(await page.locator("summary").evaluate((one) => one === document.activeElement));
});

for (const colorScheme of ["light", "dark"]) {
  test(`a run and its verdict pass the audit in the ${colorScheme} theme`, async () => {
    const page = await visit(async ({ heard, tell, write: block }) => {
      await heard();
      tell(accepted);
      block(1, COMPILER, "compiled\n");
      block(2, STDOUT, "out\n");
      block(3, STDERR, "err\n");
      tell({ phase: "running" });
      await heard();
      tell(ended(4));
    }, { colorScheme });
    await openOptions(page);
    await run(page).click();
    await shows(page, "err");
    assert.deepEqual(await audit(page), [], "while it runs");
    await page.keyboard.type("x\n");
    await see(verdict(page));
    assert.deepEqual(await audit(page), [], "when it has ended");
    await page.getByRole("button", { name: "Add a file" }).click();
    assert.deepEqual(await audit(page), [], "a question");
  });
}
