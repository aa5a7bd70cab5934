/**
 * The whole way against a running `bramble up`: `BRAMBLE_URL` and `BRAMBLE_TOKEN` say where it is, else this is skipped.
 * It expects the demo stack `publishing`, makes a stack of its own, and takes it away again, also after a failure.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { launch, open } from "./bed/browser.mjs";
import { go, gone, see } from "./bed/use.mjs";

const { BRAMBLE_URL: url, BRAMBLE_TOKEN: token } = process.env;
const skip = url && token ? false : "BRAMBLE_URL and BRAMBLE_TOKEN are not set";

const STACK = `browser-test-${process.pid}`;
const PORT = process.env.BRAMBLE_TEST_PORT ?? "18099";
/** A rollout is watched for five seconds an instance before it counts; on a busy machine starting takes as long again. */
const ROLLOUT_MS = 120_000;

const tiny = (greeting) => `services:
  hello:
    image: host
    command: ["/bin/sh", "-c", "echo ${greeting}; exec python3 -m http.server ${PORT}"]
    ports: ["${PORT}:${PORT}"]
    stop_grace_period: 1s
`;

let browser;
let page;
const rolled = { timeout: ROLLOUT_MS };
const heading = (name) => page.getByRole("heading", { name, level: 1 });
const api = (method, path) => fetch(new URL(path, url), { method, headers: { authorization: `Bearer ${token}` } });
const ready = (count) => page.locator(".page-head").getByRole("img", { name: new RegExp(`^${count} of ${count} instances? ready$`) });

before(async () => {
  if (skip) return;
  browser = await launch();
  page = await open(browser);
});
afterEach(() => {
  if (!skip) assert.deepEqual(page.troubles, [], "the page logged errors");
});
after(async () => {
  if (skip) return;
  await browser.close();
  await api("DELETE", `/v1/stacks/${STACK}`);
});

test("the login link shows the cluster", { skip }, async () => {
  await page.goto(`${url}/#token=${token}`);
  await see(heading("Overview"));
  await see(page.getByText("Live", { exact: true }));
  assert.ok(!page.url().includes(token));
  await see(page.getByRole("article", { name: /^Machine / }));
});

test("the demo stack runs", { skip }, async () => {
  await go(page, "stacks/publishing");
  await see(heading("publishing"));
  await page.locator(".page-head").getByText("running").waitFor(rolled);
});

test("its graphs fill", { skip }, async () => {
  await go(page, "stacks/publishing/web");
  await page.getByRole("figure", { name: /^Memory: #1 .*iB/ }).waitFor(rolled);
});

test("a pasted stack is checked, planned, deployed and followed until it is ready", { skip }, async () => {
  await go(page, "deploy");
  const editor = page.getByRole("textbox", { name: "Stack file" });
  await editor.fill(tiny("first").replace("image:", "imagee:"));
  await see(page.locator("mark.error"));
  await editor.fill(tiny("first"));
  await page.getByRole("textbox", { name: "Stack name" }).fill(STACK);
  await see(page.getByRole("region", { name: "Plan" }).getByText("starts 1 instance"));
  await page.getByRole("button", { name: "Deploy", exact: true }).click();
  await page.getByText(`${STACK} is running`).waitFor(rolled);
  const answer = await fetch(`http://${new URL(url).hostname}:${PORT}/`);
  assert.equal(answer.status, 200);
});

test("its log is seen", { skip }, async () => {
  await go(page, `stacks/${STACK}/hello`);
  await see(page.getByRole("log").getByText("first"));
});

test("a request to it is seen at the gateway, and opens", { skip }, async () => {
  // Whoever asks with a trace that is told of is told of too.
  const trace = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  await go(page, `gateway/${STACK}/hello`);
  await see(heading("Gateway"));
  await fetch(`http://${new URL(url).hostname}:${PORT}/seen-by-the-browser`, { headers: { traceparent: `00-${trace}-00f067aa0ba902b7-01` } });
  await page.getByRole("list", { name: "Newest requests" }).getByRole("button").filter({ hasText: "/seen-by-the-browser" }).click();
  const dialog = page.getByRole("dialog");
  await see(dialog.getByText(trace));
  await see(dialog.getByText("404"));
  await see(dialog.getByText(`${STACK}.hello.1.`));
  await page.keyboard.press("Escape");
  await see(page.getByRole("row").filter({ hasText: `${STACK}.hello.1.` }).getByText("closed"));
  await go(page, `stacks/${STACK}/hello`);
});

test("it is scaled", { skip }, async () => {
  await page.getByRole("button", { name: "One more" }).click();
  await page.getByRole("button", { name: "Scale", exact: true }).click();
  await ready(2).waitFor(rolled);
});

test("an instance that is killed comes back by itself", { skip }, async () => {
  await page.getByRole("button", { name: "Kill instance 1 of hello" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Kill it" }).click();
  await page.getByRole("row").filter({ hasText: "#1" }).locator("[data-name=Restarts]", { hasText: "1" }).waitFor(rolled);
  await ready(2).waitFor(rolled);
});

test("it is restarted", { skip }, async () => {
  const before = await page.locator("tbody code").allTextContents();
  await page.getByRole("button", { name: "Restart…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Restart", exact: true }).click();
  await page.waitForFunction(
    (old) => {
      const now = [...document.querySelectorAll("tbody code")].map((code) => code.textContent);
      return now.length === 2 && now.every((id) => !old.includes(id));
    },
    before,
    rolled,
  );
  await ready(2).waitFor(rolled);
});

test("it is reverted to its first revision", { skip }, async () => {
  await go(page, `stacks/${STACK}`);
  await page.getByRole("button", { name: "Revert to revision 1" }).click();
  await page.getByRole("button", { name: "Revert to 1" }).click();
  await see(page.getByRole("region", { name: "Revisions" }).getByText("revert to 1"));
  await ready(1).waitFor(rolled);
});

test("it is removed after its name was typed", { skip }, async () => {
  await page.getByRole("button", { name: "Remove…" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill(STACK);
  await page.getByRole("button", { name: "Remove the stack" }).click();
  await gone(page.getByRole("link", { name: STACK, exact: true }));
});
