/** What the views show, and that they stay true: changes come by the watch, not by asking again and again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { go, gone, see, use } from "./bed/use.mjs";
import { SLOTS } from "./bed/world.mjs";

const t = use();
const card = (page, name) => page.getByRole("region", { name, exact: true });
const row = (page, text) => page.getByRole("row").filter({ hasText: text });

test("the overview shows alerts, stacks and machines, each leading on", async () => {
  const page = await t.visit();
  await see(card(page, "Alerts").getByText("restarted 7 times in ten minutes"));
  await see(row(page, "publishing").getByText("4/4"));
  await see(row(page, "mailing").getByText("degraded"));
  const machine = page.getByRole("article", { name: "Machine raspberry-kitchen" });
  assert.equal(await machine.getByRole("meter", { name: "CPU" }).first().getAttribute("aria-valuetext"), "91 %");
  await see(machine.getByText("4.9 of 4"));
  assert.match(await page.title(), /^\(1\) Overview/);
  await card(page, "Alerts").getByRole("link", { name: "mailing/mail" }).click();
  await see(page.getByRole("heading", { name: "mail", level: 1 }));
  assert.equal(await page.evaluate(() => document.activeElement?.tagName), "H1", "the new place has the focus");
});

test("an empty cluster says what to do next", async () => {
  Object.assign(t.bed.state, { stacks: [], services: [], instances: [], images: [], alerts: [], nodes: [] });
  const page = await t.visit();
  await see(page.getByText("No stacks yet."));
  await see(page.getByText("No machine has reported yet."));
  await gone(card(page, "Alerts"));
  await go(page, "images");
  await see(page.getByText("No images kept."));
  await page.getByRole("link", { name: "Deploy a stack" }).click();
  await see(page.getByRole("heading", { name: "Deploy a stack" }));
});

test("a stack shows its services, its history and its file", async () => {
  const page = await t.visit("stacks/publishing");
  await see(row(page, "meilisearch").getByText("1/1"));
  // The gateway's `localhost` is the machine the page came from.
  await see(page.getByRole("link", { name: "http://127.0.0.1:8080" }));
  await see(page.getByText("tcp://:7701"));
  await see(card(page, "Revisions").getByText("2 of 2 new instances failed"));
  await page.getByText("Stack file").click();
  await see(page.getByLabel("Stack file").getByText("full text"));
});

test("what a revision changed opens below it", async () => {
  const page = await t.visit("stacks/publishing");
  await page.getByRole("button", { name: "Changes in revision 12" }).click();
  await see(page.getByText("Revision 11 → 12"));
  await see(page.getByText("replicas: 2 -> 3"));
});

test("a service shows each instance with its use against its limits", async () => {
  const page = await t.visit("stacks/publishing/web");
  const second = row(page, "p0d8f1");
  await see(second.getByText("231 MiB / 256 MiB"));
  await see(second.getByText("0.46 / 0.5"));
  await see(second.getByRole("link", { name: "raspberry-kitchen" }));
  await see(page.getByText("blog.example.org/ → 8080"));
  assert.equal(await page.getByText("do-not-show-this").count(), 0, "values of the environment are hidden at first");
  await page.getByRole("button", { name: "Show values" }).click();
  await see(page.getByText("do-not-show-this"));
});

test("a service in trouble says why", async () => {
  const page = await t.visit("stacks/mailing/mail");
  await see(page.getByText("exited with code 1 three times in a minute"));
  await see(page.getByText("the new instance exited 7 times"));
  await see(row(page, "q1w2e3").getByText("backing off"));
});

test("graphs draw and say their newest values as text", async () => {
  const page = await t.visit("stacks/publishing/web");
  const requests = page.getByRole("figure", { name: /^Requests: 2xx .*, 4xx / });
  await see(requests);
  await see(page.getByRole("figure", { name: /^Latency: p50 .* ms, p95 .* ms, p99 .* ms$/ }));
  await see(page.getByRole("figure", { name: /^Memory: #1 .* MiB, #2 .* MiB, #3 .* MiB$/ }));
  const painted = await requests.locator("canvas").evaluate((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value) => value > 0);
  });
  assert.ok(painted, "the canvas is empty");
});

test("a graph without samples says so", async () => {
  const page = await t.visit("stacks/mailing/mail");
  await see(page.getByRole("figure", { name: "Requests: no samples" }).getByText("No samples in this time yet."));
});

test("a machine shows what it cannot do and what runs on it", async () => {
  const page = await t.visit("nodes/n2");
  await see(page.getByText("cgroups are not delegated to this user"));
  await see(page.getByText("room=kitchen"));
  await see(row(page, "publishing/web").getByText("#2"));
  assert.equal(await row(page, "k3x9q2").count(), 0, "instances of other machines are not listed");
});

test("images show their names, size and use", async () => {
  const page = await t.visit("images");
  await see(row(page, "meilisearch:latest").getByText("162 MiB"));
  await see(row(page, "no name left").getByText("never"));
});

test("services are found by any part of what is known of them", async () => {
  const page = await t.visit("stacks");
  await page.getByLabel("Filter services").fill("meili run");
  await see(row(page, "search"));
  await gone(row(page, "mail-sender"));
  await page.getByLabel("Filter services").fill("nonsense");
  await see(page.getByText("No service matches “nonsense”."));
});

test("what is not there says so, with the server's hint", async () => {
  const page = await t.visit("stacks/nope");
  await see(page.getByRole("alert").getByText("there is no such stack"));
  await see(page.getByText("see which there are with bramble stack ls"));
  await go(page, "no/such/place/at/all");
  await see(page.getByText("There is no page “no/such/place/at/all”."));
});

test("a change appears by itself", async () => {
  const page = await t.visit("stacks/publishing/web");
  await see(row(page, "zz81ma").getByText("running"));
  const status = t.bed.state.instances[2].status;
  Object.assign(status, { health: "unhealthy", ready: false, message: "GET /healthz answered 503" });
  t.bed.changed("status/publishing.web.3.zz81ma");
  await see(row(page, "zz81ma").getByText("unhealthy"));
  await see(row(page, "zz81ma").getByText("GET /healthz answered 503"));
});

test("what another stack does is not asked for", async () => {
  const page = await t.visit("stacks/publishing");
  await see(row(page, "web"));
  const before = t.bed.reads.get("/v1/stacks/publishing");
  t.bed.changed("status/mailing.mail.1.q1w2e3", "stack/publishingx");
  t.bed.state.stacks[0].state = "deploying";
  t.bed.changed("stack/publishing");
  await see(page.getByText("deploying"));
  assert.equal(t.bed.reads.get("/v1/stacks/publishing"), before + 1);
});

test("declared things are never polled, sampled ones at the beat, and neither while hidden", async () => {
  const page = await t.visit("", { prepare: (page) => page.clock.install() });
  await see(row(page, "publishing"));
  const reads = () => ({ stacks: t.bed.reads.get("/v1/stacks"), nodes: t.bed.reads.get("/v1/nodes") });
  const before = reads();
  for (let beat = 0; beat < 12; beat += 1) {
    const answered = page.waitForResponse((response) => response.url().endsWith("/v1/nodes"));
    await page.clock.runFor(5_000);
    await answered;
  }
  assert.equal(reads().stacks, before.stacks);
  assert.equal(reads().nodes, before.nodes + 12);
  await page.evaluate(() => Object.defineProperty(document, "hidden", { value: true, configurable: true }));
  const hidden = reads();
  await page.clock.runFor(60_000);
  assert.deepEqual(reads(), hidden);
});

test("a broken connection is said, and mended with all that was missed", async () => {
  const page = await t.visit();
  await see(row(page, "mailing").getByText("degraded"));
  let broken = true;
  t.bed.refuse = (_method, path) => (broken && path === "/v1/watch" ? { status: 503, code: "", message: "starting" } : undefined);
  t.bed.cut();
  await see(page.getByText("The connection to the server is lost"));
  t.bed.state.stacks[1].state = "running";
  broken = false;
  await gone(page.getByText("The connection to the server is lost"));
  await see(row(page, "mailing").getByText("running"));
});

test("a tab in the background gives its streams back, and is true again once it is seen", async () => {
  const page = await t.visit("stacks/publishing/web", { prepare: (page) => page.clock.install() });
  await see(page.getByRole("log").getByText("GET / 200"));
  assert.equal(t.bed.streams, 2);
  const look = (hidden) =>
    page.evaluate((to) => {
      Object.defineProperty(document, "hidden", { value: to, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await look(true);
  await page.clock.runFor(4_000);
  assert.equal(t.bed.streams, 2, "a short look elsewhere costs nothing");
  const closed = t.bed.allClosed();
  await page.clock.runFor(2_000);
  await closed;
  t.bed.state.services[0].state = "degraded";
  t.bed.state.logs.push({ time_ms: Date.now(), instance: SLOTS[1], stream: "stdout", line: "written meanwhile" });
  await look(false);
  await see(page.locator(".page-head").getByText("degraded"));
  await see(page.getByRole("log").getByText("written meanwhile"));
  assert.equal(await page.getByRole("log").getByText("GET / 200").count(), 1);
});

test("a view that breaks says so and leaves the way to the others", async () => {
  t.bed.state.nodes[0].node.limits = null;
  const page = await t.visit("nodes/n1");
  await see(page.getByRole("heading", { name: "This view broke" }));
  assert.ok(page.troubles.length > 0, "the console says what happened");
  page.troubles = [];
  await page.getByRole("link", { name: "Images" }).click();
  await see(page.getByRole("heading", { name: "Images", level: 1 }));
});

test("graphs look back as far as was chosen, from place to place", async () => {
  const page = await t.visit("stacks/publishing/web");
  await page.getByRole("button", { name: "1 h" }).click();
  await go(page, "nodes/n1");
  assert.equal(await page.getByRole("button", { name: "1 h" }).getAttribute("aria-pressed"), "true");
});

test("an answer that fails leaves what was known beside the problem", async () => {
  const page = await t.visit("stacks/publishing");
  await see(row(page, "web"));
  t.bed.refuse = (_method, path) => (path === "/v1/stacks/publishing" ? { status: 500, code: "B0500", message: "the disk is full", hint: "free some room" } : undefined);
  t.bed.changed("stack/publishing");
  await see(page.getByRole("alert").getByText("the disk is full"));
  await see(page.getByText("free some room"));
  await see(row(page, "web"));
});

test("an alert that starts firing reaches the menu of every view", async () => {
  t.bed.state.alerts = [];
  const page = await t.visit("images", { prepare: (page) => page.clock.install() });
  t.bed.state.alerts = [{ name: "NodeSilent", labels: { node: "n2" }, summary: "n2 says nothing", firing: true, since_ms: 1, value: 1 }];
  const answered = page.waitForResponse((response) => response.url().endsWith("/v1/alerts"));
  await page.clock.runFor(5_000);
  await answered;
  await see(page.getByLabel("1 alert firing"));
});
