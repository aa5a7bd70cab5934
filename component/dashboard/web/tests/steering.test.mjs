/** The levers: each asks for exactly one thing, dangerous ones only after a question, and each tells how it went. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { askedFor, gone, see, use } from "./bed/use.mjs";

const t = use();
const dialog = (page) => page.getByRole("dialog");
const WEB = "/v1/services/publishing/web";

test("a service is scaled by its steps or by typing", async () => {
  const page = await t.visit("stacks/publishing/web");
  const scale = page.getByRole("button", { name: "Scale", exact: true });
  assert.ok(await scale.isDisabled(), "nothing to do while the number is the wanted one");
  await page.getByRole("button", { name: "One more" }).click();
  await page.getByRole("button", { name: "One more" }).click();
  await scale.click();
  assert.deepEqual((await askedFor(t.bed, page, "POST", `${WEB}/scale`)).body, { replicas: 5 });
  await see(page.getByText("publishing/web goes to 5 instances"));
  await see(page.getByText("3/5"));
  await page.getByRole("spinbutton", { name: "Instances wanted" }).fill("0");
  await page.keyboard.press("Enter");
  await see(page.getByText("publishing/web goes to 0 instances"));
  assert.deepEqual(t.bed.asked.at(-1).body, { replicas: 0 });
});

test("a number that makes no sense cannot be asked for", async () => {
  const page = await t.visit("stacks/publishing/web");
  for (const nonsense of ["", "-1", "2.5", "100000"]) {
    await page.getByRole("spinbutton", { name: "Instances wanted" }).fill(nonsense);
    assert.ok(await page.getByRole("button", { name: "Scale", exact: true }).isDisabled(), nonsense);
  }
});

test("a refusal is told with its hint and stays until it is closed", async () => {
  t.bed.refuse = (method) => (method === "POST" ? { status: 409, code: "B0207", message: "no machine has room", hint: "free memory or add a machine" } : undefined);
  const page = await t.visit("stacks/publishing/web");
  await page.getByRole("button", { name: "One more" }).click();
  await page.getByRole("button", { name: "Scale", exact: true }).click();
  await see(page.getByRole("alert").getByText("scaling publishing/web: no machine has room"));
  await see(page.getByText("free memory or add a machine"));
  await see(page.getByText("B0207"));
  await page.getByRole("button", { name: "Close notice" }).click();
  await gone(page.getByText("no machine has room"));
});

test("a restart is asked for once, after a question", async () => {
  const page = await t.visit("stacks/publishing/web");
  await page.getByRole("button", { name: "Restart…" }).click();
  await see(dialog(page).getByText("Every instance is replaced"));
  assert.deepEqual(t.bed.asked, []);
  await dialog(page).getByRole("button", { name: "Restart", exact: true }).click();
  await askedFor(t.bed, page, "POST", `${WEB}/restart`);
  await gone(dialog(page));
  assert.equal(t.bed.asked.length, 1);
});

test("an instance is killed after a question, and Escape keeps it", async () => {
  const page = await t.visit("stacks/publishing/web");
  const kill = page.getByRole("button", { name: "Kill instance 2 of web" });
  await kill.click();
  await see(dialog(page).getByText("publishing.web.2.p0d8f1"));
  await page.keyboard.press("Escape");
  await gone(dialog(page));
  assert.ok(await kill.evaluate((button) => button === document.activeElement), "the focus is back where it was");
  assert.deepEqual(t.bed.asked, []);
  await kill.click();
  await dialog(page).getByRole("button", { name: "Kill it" }).click();
  await askedFor(t.bed, page, "POST", "/v1/instances/publishing.web.2.p0d8f1/kill");
});

test("a revert shows what it changes now, then asks for that revision", async () => {
  const page = await t.visit("stacks/publishing");
  await page.getByRole("button", { name: "Revert to revision 10" }).click();
  await see(dialog(page).getByText("stops 2 instances"));
  await dialog(page).getByRole("button", { name: "Revert to 10" }).click();
  assert.deepEqual((await askedFor(t.bed, page, "POST", "/v1/stacks/publishing/revert")).body, { to: 10 });
  await see(page.getByText("publishing goes back to revision 10"));
  assert.equal(await page.getByRole("button", { name: "Revert to revision 12" }).count(), 0, "the current one is no way back");
});

test("a stack is removed only after its name was typed", async () => {
  const page = await t.visit("stacks/publishing");
  await page.getByRole("button", { name: "Remove…" }).click();
  const remove = dialog(page).getByRole("button", { name: "Remove the stack" });
  assert.ok(await remove.isDisabled());
  await dialog(page).getByRole("textbox").fill("publishin");
  await page.keyboard.press("Enter");
  assert.ok(await remove.isDisabled());
  await dialog(page).getByRole("textbox").fill("publishing");
  await remove.click();
  await askedFor(t.bed, page, "DELETE", "/v1/stacks/publishing");
  await see(page.getByRole("heading", { name: "Stacks", level: 1 }));
  await gone(page.getByRole("link", { name: "publishing", exact: true }));
  assert.equal(t.bed.asked.length, 1);
});

test("an image is pulled with its progress in sight", async () => {
  const page = await t.visit("images");
  await page.getByRole("textbox", { name: "Image to pull" }).fill("nginx:1.27");
  await page.keyboard.press("Enter");
  await see(page.getByText("512 KiB of 1 MiB"));
  t.bed.pulled();
  await see(page.getByText("nginx:1.27 is here"));
  await see(page.getByRole("row").filter({ hasText: "nginx:1.27" }));
});

test("a pull that fails says why and can be tried again", async () => {
  const page = await t.visit("images");
  await page.getByRole("textbox", { name: "Image to pull" }).fill("nope:1");
  await page.getByRole("button", { name: "Pull" }).click();
  await see(page.getByText("512 KiB of 1 MiB"));
  t.bed.pulled({ code: "B0502", message: "pull nope:1: the registry does not know it", hint: "look at its name", diagnostics: [] });
  await see(page.getByRole("alert").getByText("the registry does not know it"));
  assert.equal(await page.getByRole("textbox", { name: "Image to pull" }).inputValue(), "nope:1");
});

test("unused images are removed after a question", async () => {
  const page = await t.visit("images");
  await page.getByRole("button", { name: "Remove unused…" }).click();
  await see(dialog(page).getByText("1 image no instance runs from"));
  assert.deepEqual(t.bed.asked, []);
  await dialog(page).getByRole("button", { name: "Remove them" }).click();
  await askedFor(t.bed, page, "POST", "/v1/images/prune");
  await see(page.getByText("1 image removed, 71 MiB freed"));
  await gone(page.getByText("no name left"));
});
