/** What every browser test begins with: a bed, a browser, and a way to look at a place, logged in. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach } from "node:test";
import { launch, open } from "./browser.mjs";
import { start } from "./server.mjs";

export function use() {
  const test = { bed: undefined, browser: undefined };
  let pages = [];

  before(async () => {
    test.bed = await start();
    test.browser = await launch();
  });
  beforeEach(() => {
    test.bed.reset();
    pages = [];
  });
  afterEach(async () => {
    const troubles = pages.flatMap((page) => page.troubles);
    await Promise.all(pages.map((page) => page.context().close()));
    assert.deepEqual(troubles, [], "the page logged errors");
  });
  after(async () => {
    await test.browser?.close();
    await test.bed?.close();
  });

  test.open = async (options) => {
    const page = await open(test.browser, options);
    pages.push(page);
    return page;
  };
  /** A page at a place such as `stacks/publishing`, logged in, the live wire up. */
  test.visit = async (place = "", options = {}) => {
    const page = await test.open(options);
    if (options.prepare) await options.prepare(page);
    await page.goto(test.bed.login);
    await page.getByText("Live", { exact: true }).waitFor({ state: "attached" });
    if (place !== "") await go(page, place);
    return page;
  };
  return test;
}

export async function go(page, place) {
  await page.evaluate(
    (to) =>
      new Promise((resolve) => {
        if (location.hash === to) return resolve();
        addEventListener("hashchange", () => setTimeout(resolve), { once: true });
        location.hash = to;
      }),
    `#/${place}`,
  );
  await page.waitForFunction(() => !document.body.innerText.includes("Loading…"));
}

/** Waits until it can be seen; the error names what was missing. */
export async function see(locator) {
  await locator.first().waitFor();
  return locator;
}

export async function gone(locator) {
  await locator.first().waitFor({ state: "detached" });
}

/** Waits until the server was asked to do something, and gives it back. */
export async function askedFor(bed, page, method, path) {
  const found = () => bed.asked.findLast((one) => one.method === method && one.path === path);
  // Each turn of the page's event loop is a chance for the request to arrive; the page's patience bounds the wait.
  const deadline = performance.now() + 20_000;
  while (!found()) {
    assert.ok(performance.now() < deadline, `the page never asked for ${method} ${path}`);
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
  }
  return found();
}
