/** For everyone: by keyboard, on a phone, in either theme, with a screen reader, and under the strict policy. */
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { audit } from "./bed/audit.mjs";
import { go, gone, see, use } from "./bed/use.mjs";

const t = use();
const PLACES = ["", "stacks", "stacks/publishing", "stacks/publishing/web", "stacks/mailing/mail", "nodes", "nodes/n2", "gateway", "gateway/publishing/web", "images", "deploy", "deploy/publishing", "run", "nowhere"];
const heading = (page, name) => page.getByRole("heading", { name, level: 1 });

for (const colorScheme of ["light", "dark"]) {
  test(`every view passes the audit in the ${colorScheme} theme`, async () => {
    const page = await t.visit("", { colorScheme });
    for (const place of PLACES) {
      await go(page, place);
      assert.deepEqual(await audit(page), [], `#/${place}`);
    }
  });

  test(`login, questions, findings and notices pass the audit in the ${colorScheme} theme`, async () => {
    const page = await t.open({ colorScheme });
    await page.goto(`${t.bed.url}/#token=wrong`);
    await see(page.getByText("does not accept this token"));
    assert.deepEqual(await audit(page), [], "login");
    await page.goto(t.bed.login);
    await see(heading(page, "Overview"));
    await page.keyboard.press("/");
    await see(page.getByRole("option"));
    assert.deepEqual(await audit(page), [], "go to");
    await page.keyboard.press("Escape");
    await go(page, "stacks/publishing");
    await page.getByRole("button", { name: "Remove…" }).click();
    assert.deepEqual(await audit(page), [], "remove");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Revert to revision 9" }).click();
    await see(page.getByText("stops 3 instances"));
    assert.deepEqual(await audit(page), [], "revert");
    await page.getByRole("button", { name: "Revert to 9" }).click();
    await see(page.getByText("publishing goes back to revision 9"));
    assert.deepEqual(await audit(page), [], "notice");
    await go(page, "gateway");
    await page.getByRole("button", { name: /comments/ }).click();
    await see(page.getByRole("dialog").getByText("In all"));
    assert.deepEqual(await audit(page), [], "request");
    await page.keyboard.press("Escape");
    await go(page, "deploy");
    await page.getByRole("textbox", { name: "Stack file" }).fill("services:\n  web:\n    imagee: nginx:latest\n");
    await see(page.getByText("1 error"));
    assert.deepEqual(await audit(page), [], "findings");
  });
}

test("nothing is wider than a phone, and everything stays reachable on it", async () => {
  const page = await t.visit("", { viewport: { width: 375, height: 740 }, isMobile: true, hasTouch: true });
  for (const place of PLACES) {
    await go(page, place);
    const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(content <= screen, `#/${place} is ${content} px wide`);
    assert.deepEqual(await audit(page), [], `#/${place}`);
  }
  await page.getByRole("link", { name: "Machines" }).tap();
  await see(heading(page, "Machines"));
});

test("nothing is cut off or pushed aside at any width between", async () => {
  const page = await t.visit();
  for (const width of [320, 480, 640, 768, 819, 820, 900, 1024, 1130, 1180, 1280, 1920]) {
    await page.setViewportSize({ width, height: 800 });
    for (const place of PLACES) {
      await go(page, place);
      const over = await page.evaluate(() => {
        const wide = [...document.querySelectorAll("main table, main .card")].filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
        return document.documentElement.scrollWidth > document.documentElement.clientWidth ? ["page"] : wide.map((one) => one.tagName);
      });
      assert.deepEqual(over, [], `#/${place} at ${width} px`);
    }
  }
});

test("two keys lead to each place", async () => {
  const page = await t.visit();
  for (const [key, name] of [["s", "Stacks"], ["n", "Machines"], ["i", "Images"], ["g", "Gateway"], ["d", "Deploy a stack"], ["r", "Run code"], ["o", "Overview"]]) {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await see(heading(page, name));
  }
});

test("letters typed into a field are only letters", async () => {
  const page = await t.visit("stacks");
  await page.getByLabel("Filter services").pressSequentially("gs/?");
  assert.equal(await page.getByLabel("Filter services").inputValue(), "gs/?");
  assert.equal(await page.getByRole("dialog").count(), 0);
});

test("a slash finds anything by a part of its name", async () => {
  const page = await t.visit();
  await page.keyboard.press("/");
  await page.keyboard.type("mail");
  await see(page.getByRole("option", { name: "mailing/mail service" }));
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await see(heading(page, "mailing"));
  await gone(page.getByRole("dialog"));
  await page.keyboard.press("Control+k");
  await page.keyboard.type("nothing like it");
  await see(page.getByText("Nothing has “nothing like it” in its name."));
  await page.keyboard.press("Escape");
  await gone(page.getByRole("dialog"));
});

test("a question mark tells the keys", async () => {
  const page = await t.visit();
  await page.keyboard.press("?");
  await see(page.getByRole("dialog").getByText("go to a stack, a service"));
  await page.keyboard.press("Escape");
  await gone(page.getByRole("dialog"));
});

test("the first Tab offers to skip the menu", async () => {
  const page = await t.visit();
  await page.keyboard.press("Tab");
  const skip = page.getByRole("link", { name: "Skip to content" });
  assert.ok(await skip.evaluate((link) => link === document.activeElement));
  await page.keyboard.press("Enter");
  assert.ok(await heading(page, "Overview").evaluate((title) => title === document.activeElement));
});

test("a chosen theme is kept, and set before anything is painted", async () => {
  const page = await t.visit();
  const scheme = () => page.evaluate(() => getComputedStyle(document.documentElement).colorScheme);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole("button", { name: "Theme: as the system" }).click();
  await page.getByRole("button", { name: "Theme: light" }).click();
  assert.equal(await scheme(), "dark");
  assert.notEqual(await ground(), light);
  await page.reload();
  await see(heading(page, "Overview"));
  assert.equal(await scheme(), "dark");
  await page.getByRole("button", { name: "Theme: dark" }).click();
  assert.equal(await scheme(), "light dark");
});

test("graphs are painted again in the colours of a new theme", async () => {
  const page = await t.visit("stacks/publishing/web");
  const requests = page.getByRole("figure", { name: /^Requests: 2xx/ });
  const picture = () => requests.locator("canvas").evaluate((canvas) => canvas.toDataURL());
  const light = await picture();
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForFunction((before) => {
    const canvas = document.querySelector("figure canvas");
    return canvas && canvas.toDataURL() !== before;
  }, light);
});

test("nothing moves for those who asked for less motion", async () => {
  const page = await t.visit("stacks/mailing/mail", { reducedMotion: "reduce" });
  t.bed.state.services[2].state = "updating";
  t.bed.changed("rollout/mailing/mail");
  await see(page.getByText("updating"));
  assert.deepEqual(await page.evaluate(() => document.getAnimations().map((one) => one.animationName)), []);
});

test("the page works under its own policy, which allows nothing inline", async () => {
  assert.match(t.bed.policy, /default-src 'none'/);
  assert.doesNotMatch(t.bed.policy, /unsafe/);
  const page = await t.visit("stacks/publishing/web");
  await see(page.getByRole("figure", { name: /^Requests: 2xx/ }));
  const refused = await page.evaluate(() => new Promise((resolve) => {
    addEventListener("securitypolicyviolation", (event) => resolve(event.violatedDirective));
    const script = document.createElement("script");
    script.textContent = "window.hit = 1";
    document.body.append(script);
  }));
  assert.equal(refused, "script-src-elem");
  assert.equal(await page.evaluate(() => window.hit), undefined);
  page.troubles = page.troubles.filter((trouble) => !/inline script/.test(trouble));
});

test("what a browser must load stays small, and so does what one view adds", async () => {
  const { gzipSync } = await import("node:zlib");
  const dist = new URL("../dist/", import.meta.url);
  const first = await readFile(new URL("index.html", dist), "utf8");
  let [total, late] = [0, 0];
  for (const entry of await readdir(dist, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const size = gzipSync(await readFile(`${entry.parentPath}/${entry.name}`)).length;
    // The page's own files are named in it; those that views load later are not.
    if (first.includes(entry.name) || `${entry.parentPath}/` === fileURLToPath(dist)) total += size;
    else late += size;
  }
  assert.ok(total > 90_000 && total < 150_000, `${total} bytes compressed at first`);
  assert.ok(late < 450_000, `${late} bytes compressed later`);
});
