/** The log as it is written: followed, held still, filtered, coloured, and never able to do anything but be read. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { gone, see, use } from "./bed/use.mjs";
import { SLOTS } from "./bed/world.mjs";

const t = use();
const log = (page) => page.getByRole("log");
const line = (text, more = {}) => ({ time_ms: Date.now(), instance: SLOTS[1], stream: "stdout", line: text, ...more });
const visit = () => t.visit("stacks/publishing/web");

test("lines come as they are written, in their colours", async () => {
  const page = await visit();
  await see(log(page).getByText("GET / 200 0.8ms"));
  assert.ok(await log(page).getByText("ERROR").evaluate((part) => part.classList.contains("fg-1")));
  await see(log(page).getByText("true colour"));
  t.bed.log(line("\u001b[1;32mnew\u001b[0m line"));
  await see(log(page).getByText("line"));
  assert.ok(await log(page).getByText("new", { exact: true }).evaluate((part) => part.className.includes("bold")));
});

test("markup and escapes in a log are only text", async () => {
  const page = await visit();
  await see(log(page).getByText("<script>alert(1)</script>"));
  t.bed.log(line(`<img src=x onerror="window.hit=1"> \u001b]0;title\u0007\u001b[2J\u001b[10;10Hafter\u0000\u0008\u009b31m`));
  await see(log(page).getByText(`<img src=x onerror="window.hit=1"> after`));
  assert.equal(await page.evaluate(() => window.hit), undefined);
  assert.equal(await log(page).locator("img, script").count(), 0);
});

test("held still, it counts what is new, and goes on with all of it", async () => {
  const page = await visit();
  await see(log(page).getByText("GET / 200"));
  await page.getByRole("button", { name: "Pause" }).click();
  t.bed.log(line("while held still 1"));
  t.bed.log(line("while held still 2"));
  await see(page.getByText("Held still · 2 new"));
  assert.equal(await log(page).getByText("while held still").count(), 0);
  await page.getByRole("button", { name: "Go on" }).click();
  await see(log(page).getByText("while held still 2"));
});

test("the newest line stays in sight until one scrolls back", async () => {
  const page = await visit();
  for (let number = 1; number <= 100; number += 1) t.bed.log(line(`line ${number}`));
  await see(log(page).getByText("line 100", { exact: true }));
  await page.waitForFunction(() => {
    const box = document.querySelector("[role=log]");
    return box.scrollHeight - box.scrollTop - box.clientHeight < 4;
  });
  await log(page).evaluate((box) => (box.scrollTop = 0));
  await see(page.getByText("Scrolled back"));
  t.bed.log(line("line 101"));
  await see(log(page).getByText("line 101", { exact: true }));
  assert.equal(await log(page).evaluate((box) => box.scrollTop), 0, "reading back is not disturbed");
  await page.getByRole("button", { name: "To the newest" }).click();
  await gone(page.getByText("Scrolled back"));
});

test("the server filters, and new lines that do not match stay out", async () => {
  const page = await visit();
  await page.getByLabel("Only lines with").fill("search");
  await gone(log(page).getByText("GET / 200"));
  t.bed.log(line("nothing of it"));
  t.bed.log(line("search again"));
  await see(log(page).getByText("search again"));
  assert.equal(await log(page).getByText("nothing of it").count(), 0);
  await page.getByLabel("Only lines with").fill("no such text");
  await see(log(page).getByText("No line with “no such text” so far."));
});

test("a pattern the server refuses says why", async () => {
  const page = await visit();
  await page.getByLabel("Only lines with").fill("/[/");
  await see(page.getByText("the pattern is not a regular expression"));
  await see(page.getByText("close the bracket"));
  await page.getByLabel("Only lines with").fill("GET");
  await gone(page.getByText("the pattern is not a regular expression"));
});

test("one instance can be looked at alone", async () => {
  const page = await visit();
  await see(log(page).getByText("slow answer"));
  await page.getByRole("combobox", { name: "Instance" }).selectOption(SLOTS[3]);
  await gone(log(page).getByText("slow answer"));
  await see(log(page).getByText("the-quiet-season"));
});

test("only so many lines are kept", async () => {
  const page = await visit();
  await see(log(page).getByText("GET / 200"));
  for (let number = 1; number <= 2_300; number += 1) t.bed.log(line(`many ${number}`));
  await see(log(page).getByText("many 2300", { exact: true }));
  assert.equal(await log(page).locator(".line").count(), 2_000);
});

test("after a gap it goes on where it was, nothing twice", async () => {
  const page = await visit();
  await see(log(page).getByText("GET / 200"));
  t.bed.cut();
  t.bed.log(line("after the gap"));
  await see(log(page).getByText("after the gap"));
  assert.equal(await log(page).getByText("GET / 200").count(), 1);
});
