/** From a stack file to running services. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { askedFor, gone, see, use } from "./bed/use.mjs";

const t = use();
const editor = (page) => page.getByRole("textbox", { name: "Stack file" });
const name = (page) => page.getByRole("textbox", { name: "Stack name" });
const deploy = (page) => page.getByRole("button", { name: "Deploy", exact: true });
const TINY = "services:\n  hello:\n    image: host\n    command: [\"python3\", \"-m\", \"http.server\", \"9999\"]\n";

test("an error stands at its line and column, and is gone once it is mended", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill("name: demo\nservices:\n  web:\n    imagee: nginx:latest\n");
  await see(page.getByText("1 error"));
  const finding = page.getByRole("button", { name: /4:5.*unknown field `imagee`/ });
  await see(finding);
  await see(page.getByText("did you mean `image`?"));
  await see(page.locator("mark.error", { hasText: "imagee" }));
  await see(page.locator("mark.warning", { hasText: "latest" }));
  assert.ok(await deploy(page).isDisabled());
  await finding.click();
  const caret = await editor(page).evaluate((text) => [text === document.activeElement, text.selectionStart]);
  assert.deepEqual(caret, [true, "name: demo\nservices:\n  web:\n    ".length]);
  await editor(page).fill("name: demo\nservices:\n  web:\n    image: nginx:latest\n");
  await gone(finding);
  await see(page.getByRole("button", { name: /`latest` means another image/ }));
  await see(page.getByText("Looks right."));
  assert.ok(await deploy(page).isEnabled(), "a warning does not stop a deploy");
});

test("the plan is shown before anything happens", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill(TINY);
  await see(page.getByText("Give it a name to see the plan."));
  assert.ok(await deploy(page).isDisabled());
  await name(page).fill("demo");
  await see(page.getByRole("region", { name: "Plan" }).getByText("starts 2 instances"));
  assert.ok(t.bed.asked.every(({ method, path }) => method === "POST" && /check|plan$/.test(path)));
});

test("a deploy is followed until it is ready", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill(TINY);
  await name(page).fill("demo");
  await see(page.getByText("Looks right."));
  t.bed.deploy("demo", 0, 2, "deploying");
  await deploy(page).click();
  const asked = await askedFor(t.bed, page, "PUT", "/v1/stacks/demo");
  assert.deepEqual(asked.body, { source: TINY, variables: {}, files: {}, directory: "" });
  t.bed.state.stacks.at(-1).revision = 2;
  const progress = page.getByRole("region", { name: "Progress" });
  await see(progress.getByText("Deploying demo…"));
  t.bed.deploy("demo", 1, 2, "deploying");
  t.bed.state.stacks.at(-1).revision = 2;
  t.bed.changed("status/demo.hello.1.abc1");
  await see(progress.getByText("1 of 2 instances"));
  t.bed.deploy("demo", 2, 2, "running");
  t.bed.state.stacks.at(-1).revision = 2;
  t.bed.changed("status/demo.hello.2.abc2");
  await see(progress.getByText("demo is running"));
  await see(progress.getByRole("link", { name: "http://127.0.0.1:9999" }));
});

test("a deploy that cannot succeed says that it needs a look", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill(TINY);
  await name(page).fill("demo");
  await see(page.getByText("Looks right."));
  t.bed.deploy("demo", 0, 1, "failed: no machine has python3");
  await deploy(page).click();
  await see(page.getByText("demo needs a look"));
  await see(page.getByRole("region", { name: "Progress" }).getByText("no machine has python3"));
});

test("findings of a refused deploy stand in the text too", async () => {
  t.bed.refuse = (method) =>
    method === "PUT" ? { status: 422, code: "B0101", message: "the stack file has 1 error", hint: "", diagnostics: [{ line: 3, column: 5, path: "services.hello.image", message: "no such image", hint: "look at its name" }] } : undefined;
  const page = await t.visit("deploy");
  await editor(page).fill(TINY);
  await name(page).fill("demo");
  await see(page.getByText("Looks right."));
  await deploy(page).click();
  await see(page.getByRole("button", { name: /3:5.*no such image/ }));
  await see(page.getByText("the stack file has 1 error"));
});

test("the name comes from the file until one is typed", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill(`name: from-file\n${TINY}`);
  await page.waitForFunction(() => document.querySelector("label.field input").value === "from-file");
  await name(page).fill("typed");
  await editor(page).fill(`name: other\n${TINY}`);
  await see(page.getByText("Looks right."));
  assert.equal(await name(page).inputValue(), "typed");
});

test("variables are asked for, and an env file fills them in", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill("name: demo\nservices:\n  web:\n    image: ${IMAGE:-nginx}:${TAG}\n    # ${NOT_ME}\n    command: echo $$HOME\n");
  assert.equal(await page.getByLabel("IMAGE", { exact: true }).getAttribute("placeholder"), "nginx");
  assert.equal(await page.getByLabel("NOT_ME").count() + (await page.getByLabel("HOME").count()), 0);
  await page.locator("input[type=file]").setInputFiles([
    { name: ".env", mimeType: "text/plain", buffer: Buffer.from("# the tag\nexport TAG=\"1.27\"\n") },
    { name: "site.conf", mimeType: "text/plain", buffer: Buffer.from("listen 80;") },
  ]);
  await page.waitForFunction(() => [...document.querySelectorAll("input")].some((input) => input.value === "1.27"));
  await page.getByLabel("IMAGE", { exact: true }).fill("caddy");
  await see(page.getByText("Looks right."));
  await deploy(page).click();
  const { body } = await askedFor(t.bed, page, "PUT", "/v1/stacks/demo");
  assert.deepEqual(body.variables, { IMAGE: "caddy", TAG: "1.27" });
  assert.equal(Buffer.from(body.files["./site.conf"], "base64").toString(), "listen 80;");
  assert.equal(body.files["site.conf"], body.files["./site.conf"]);
});

test("a dropped file becomes the text", async () => {
  const page = await t.visit("deploy");
  const transfer = await page.evaluateHandle((text) => {
    const data = new DataTransfer();
    data.items.add(new File([text], "compose.yaml", { type: "application/yaml" }));
    return data;
  }, `name: dropped\r\n${TINY}`);
  await editor(page).dispatchEvent("dragover", { dataTransfer: transfer });
  await editor(page).dispatchEvent("drop", { dataTransfer: transfer });
  await page.waitForFunction(() => document.querySelector("textarea").value.startsWith("name: dropped\n"));
});

test("a file with relative paths asks for the folder they start from", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill("name: demo\nservices:\n  web:\n    image: nginx\n    volumes: [\"./site:/site\"]\n");
  await page.getByLabel(/Folder that relative paths start from/).fill("/home/me/demo");
  await see(page.getByText("Looks right."));
  await deploy(page).click();
  assert.equal((await askedFor(t.bed, page, "PUT", "/v1/stacks/demo")).body.directory, "/home/me/demo");
});

test("an existing stack is edited from its own file under its own name", async () => {
  const page = await t.visit("stacks/publishing");
  await page.getByRole("link", { name: "Edit and deploy" }).click();
  await page.waitForFunction(() => document.querySelector("textarea")?.value.startsWith("name: publishing"));
  assert.ok(await name(page).isDisabled());
  await see(page.getByText("Looks right."));
});

test("what was being written is still there after a look elsewhere", async () => {
  const page = await t.visit("deploy");
  await editor(page).fill(`name: draft\n${TINY}`);
  await see(page.getByText("Looks right."));
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: "Machines", exact: true }).click();
  await see(page.getByRole("heading", { name: "Machines", level: 1 }));
  await page.goBack();
  assert.match(await editor(page).inputValue(), /^name: draft/);
});

test("the editor indents with Tab, takes it back with undo, and lets the keyboard leave", async () => {
  const page = await t.visit("deploy");
  await editor(page).click();
  await page.keyboard.type("services:");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.type("web:");
  assert.equal(await editor(page).inputValue(), "services:\n  web:");
  await page.keyboard.press("Shift+Tab");
  assert.equal(await editor(page).inputValue(), "services:\nweb:");
  await page.keyboard.press("Control+z");
  assert.equal(await editor(page).inputValue(), "services:\n  web:");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Tab");
  assert.ok(!(await editor(page).evaluate((text) => text === document.activeElement)));
});
