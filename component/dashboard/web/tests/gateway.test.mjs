/** The gateway as it is seen: requests as they come, why one went as it did, who is left out, who is banned, what ends when. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { askedFor, go, gone, see, use } from "./bed/use.mjs";
import { SLOTS, request } from "./bed/world.mjs";

const t = use();
const card = (page, name) => page.getByRole("region", { name, exact: true });
const row = (page, text) => page.getByRole("row").filter({ hasText: text });
const list = (page) => page.getByRole("list", { name: "Newest requests" });
const line = (page, text) => list(page).getByRole("button").filter({ hasText: text });
const first = (page) => list(page).getByRole("button").first();
const visit = (more = "") => t.visit(`gateway${more}`);

test("requests come as they are told of, the newest first", async () => {
  const page = await visit();
  await see(line(page, "/posts/the-quiet-season"));
  t.bed.request(request(Date.now(), { method: "PUT", path: "/new", status: 201 }));
  await see(line(page, "/new"));
  assert.match(await first(page).innerText(), /PUT[\s\S]*\/new/);
  await see(line(page, "/comments").getByText("2 failed before"));
  await see(line(page, "/wp-login.php").getByText("no service"));
});

test("a request opens with all it takes to debug it", async () => {
  const page = await visit();
  await line(page, "/comments").click();
  const dialog = page.getByRole("dialog", { name: "POST /comments" });
  await see(dialog.getByText("B0605"));
  const part = (name) => dialog.getByRole("row", { name });
  for (const [name, value] of [["Queue", "120 ms 15 %"], ["Connect", "31 ms 3.9 %"], ["Answer", "640 ms 80 %"], ["Body", "9 ms 1.1 %"], ["In all", "800 ms"]]) {
    assert.equal((await part(name).getByRole("cell").allInnerTexts()).join(" ").trim(), value);
  }
  const bar = (name) => part(name).locator("i").boundingBox();
  const [queue, connect, answer] = [await bar("Queue"), await bar("Connect"), await bar("Answer")];
  assert.ok(Math.abs(queue.x + queue.width - connect.x) < 2 && connect.x < answer.x && answer.width > 4 * queue.width, "one after the other, to scale");
  await see(dialog.getByRole("listitem").filter({ hasText: SLOTS[2] }).getByText("no connection"));
  await see(dialog.getByRole("listitem").filter({ hasText: SLOTS[3] }).getByText("broke off before an answer"));
  await see(dialog.getByText("4bf92f3577b34da6a3ce929d0e0e4736"));
  await see(dialog.getByText("order-4711"));
  await see(dialog.getByText("TLS 1.3, resumed"));
  await dialog.getByRole("link", { name: "publishing/web" }).click();
  await see(page.getByRole("heading", { name: "web", level: 1 }));
});

test("by keyboard a request is opened, closed and left where it was", async () => {
  const page = await visit();
  await line(page, "/comments").focus();
  await page.keyboard.press("Enter");
  await see(page.getByRole("dialog"));
  await page.keyboard.press("Escape");
  await gone(page.getByRole("dialog"));
  assert.ok(await line(page, "/comments").evaluate((button) => button === document.activeElement));
});

test("all that is known of a trace is one step away, and back", async () => {
  const page = await visit();
  await line(page, "/comments").click();
  await page.getByRole("button", { name: "All of this trace" }).click();
  await see(page.getByText("Only trace 4bf92f3577b34da6a3ce929d0e0e4736"));
  await gone(line(page, "/search"));
  await see(line(page, "/comments"));
  await page.getByRole("button", { name: "Show all requests" }).click();
  await see(line(page, "/search"));
});

test("the server filters by status, service and time, also what comes later", async () => {
  const page = await visit();
  await page.getByRole("combobox", { name: "Status" }).selectOption("5xx");
  await gone(line(page, "/search"));
  t.bed.request(request(Date.now(), { path: "/well" }), request(Date.now(), { path: "/worse", status: 500 }));
  await see(line(page, "/worse"));
  assert.equal(await list(page).getByRole("button").count(), 2);
  await page.getByRole("combobox", { name: "Status" }).selectOption("gone");
  await see(line(page, "/search").getByText("left"));
  await page.getByRole("combobox", { name: "Took" }).selectOption("5000");
  await see(page.getByText("No such request so far."));
  await page.getByRole("button", { name: "Show all requests" }).click();
  await page.getByRole("combobox", { name: "Service" }).selectOption("publishing/search");
  await see(page.getByText("No such request so far."));
});

test("held still, nothing moves, and nothing is lost", async () => {
  const page = await visit();
  await see(line(page, "/search"));
  await page.getByRole("button", { name: "Pause" }).click();
  t.bed.request(request(Date.now(), { path: "/one" }), request(Date.now(), { path: "/two" }));
  await see(page.getByText("Held still · 2 new"));
  assert.equal(await line(page, "/one").count(), 0);
  await page.getByRole("button", { name: "To the newest" }).click();
  assert.match(await first(page).innerText(), /\/two/);
  await see(line(page, "/one"));
});

test("only so many are kept, however many come", async () => {
  const page = await visit();
  await see(line(page, "/search"));
  t.bed.request(...Array.from({ length: 500 }, (_, number) => request(Date.now(), { path: `/many/${number}` })));
  await see(line(page, "/many/499"));
  assert.equal(await list(page).getByRole("button").count(), 300);
});

test("after a gap it goes on with what was missed, nothing twice", async () => {
  const page = await visit();
  await see(line(page, "/search"));
  t.bed.cut();
  t.bed.request(request(Date.now(), { path: "/meanwhile" }));
  await see(line(page, "/meanwhile"));
  assert.equal(await line(page, "/search").count(), 1);
});

test("who is left out comes first, with why, since when and when it is tried", async () => {
  const page = await visit();
  const instances = card(page, "Instances");
  await see(page.getByText("2 instances left out"));
  const out = row(page, SLOTS[2]);
  await see(out.getByText("open", { exact: true }));
  await see(out.getByText(/left out: it answers with errors, tried again in (9|10) min/));
  await see(out.getByText("2 min ago"));
  await see(row(page, "publishing.search.1").getByText("asked now and then: it takes no connections"));
  assert.match(await instances.getByRole("row").nth(1).innerText(), /p0d8f1/, "left out before tried before well");
  await see(out.getByRole("img", { name: /^In the last 5 min: 2 times out, / }));
  await see(row(page, SLOTS[1]).getByRole("img", { name: "In the last 5 min: never out" }));
  const [closed, half, open] = await Promise.all(["closed", "half-open", "open"].map((name) => out.locator(`rect.${name}`).first().getAttribute("height")));
  assert.ok(Number(closed) < Number(half) && Number(half) < Number(open), "told apart without colour");
});

test("a breaker that closes is seen at the next beat", async () => {
  const page = await t.visit("gateway", { prepare: (page) => page.clock.install() });
  await see(page.getByText("2 instances left out"));
  for (const { endpoints } of t.bed.state.ports) for (const one of endpoints) Object.assign(one, { breaker: "closed", why: "" });
  const answered = page.waitForResponse((response) => response.url().endsWith("/v1/gateway/endpoints"));
  await page.clock.runFor(5_000);
  await answered;
  await see(page.getByText("no instance left out"));
});

test("a client that is banned is let in again", async () => {
  const page = await visit();
  await see(row(page, "203.0.113.9").getByText("42 min"));
  await page.getByRole("button", { name: "Let in again: 203.0.113.9" }).click();
  await askedFor(t.bed, page, "DELETE", "/v1/gateway/bans/203.0.113.9");
  await see(page.getByText("203.0.113.9 is let in again by 1 route"));
  await see(page.getByText("Nobody is banned."));
});

test("certificates tell their dates, those in trouble first", async () => {
  const page = await visit();
  const rows = card(page, "Certificates").getByRole("row");
  await see(rows.filter({ hasText: "old.example.org" }).getByText("ends soon"));
  await see(rows.filter({ hasText: "old.example.org" }).getByText(/in [45] d/));
  await see(rows.filter({ hasText: "blog.example.org" }).first().getByText("valid"));
  await see(rows.filter({ hasText: "broken.crt" }).getByText("its key is another's"));
  await see(rows.filter({ hasText: "new.example.org" }).getByText("could not reach"));
  assert.doesNotMatch(await rows.nth(1).innerText(), /valid/);
  await see(page.getByText("3 certificates in need of you"));
});

test("of one service only what is its own is shown", async () => {
  const page = await t.visit("stacks/publishing/web");
  await page.getByRole("link", { name: "Its requests" }).click();
  await see(page.getByRole("heading", { name: "Gateway", level: 1 }));
  assert.equal(await page.getByRole("combobox", { name: "Service" }).inputValue(), "publishing/web");
  await see(line(page, "/comments"));
  assert.equal(await line(page, "/wp-login.php").count(), 0);
  assert.equal(await row(page, "publishing.search.1").count(), 0);
});

test("where there is nothing yet it says what to do", async () => {
  Object.assign(t.bed.state, { requests: [], ports: [], bans: [], certificates: [] });
  const page = await visit();
  for (const text of ["No request has been told of so far.", "The gateway has nobody to ask.", "Nobody is banned.", "No certificates yet."]) await see(page.getByText(text));
  await see(page.getByText("access_log: all"));
  await go(page, "gateway/publishing/web");
  await see(page.getByText("No such request so far."));
});
