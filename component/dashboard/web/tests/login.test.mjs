/** Who may see: the token arrives by link or by hand, is kept, and is given up when it is refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { gone, see, use } from "./bed/use.mjs";
import { TOKEN } from "./bed/world.mjs";

const t = use();
const overview = (page) => page.getByRole("heading", { name: "Overview", level: 1 });
const field = (page) => page.getByLabel("Access token");

test("the login link logs in and leaves no token in the address", async () => {
  const page = await t.open();
  await page.goto(t.bed.login);
  await see(overview(page));
  assert.ok(!page.url().includes(TOKEN), page.url());
  await page.goBack().catch(() => undefined);
  assert.ok(!page.url().includes(TOKEN), page.url());
});

test("the login outlives the tab", async () => {
  const page = await t.visit();
  const other = await page.context().newPage();
  await other.goto(t.bed.url);
  await see(overview(other));
});

test("without a token there is a field and a word on where to find one", async () => {
  const page = await t.open();
  await page.goto(t.bed.url);
  await see(page.getByText("bramble up", { exact: true }));
  assert.equal(t.bed.reads.size, 0, "nothing is asked before there is a token");
});

for (const [what, typed] of [["the token", TOKEN], ["the whole link", `http://192.0.2.7:7700/#token=${TOKEN}`], ["blanks around it", `  ${TOKEN}\n`]]) {
  test(`pasting ${what} logs in`, async () => {
    const page = await t.open();
    await page.goto(t.bed.url);
    await field(page).fill(typed.trim() === typed ? typed : typed.replace("\n", " "));
    await page.keyboard.press("Enter");
    await see(overview(page));
  });
}

test("a wrong token is said to be wrong and forgotten", async () => {
  const page = await t.open();
  await page.goto(`${t.bed.url}/#token=wrong`);
  await see(page.getByText("does not accept this token"));
  await see(field(page));
  assert.equal(await page.evaluate(() => localStorage.length), 0, "a refused token is forgotten");
});

test("a token refused later leads back to the login, and a new link lets in again", async () => {
  const page = await t.visit();
  t.bed.token = "replaced";
  t.bed.changed("stack/publishing");
  await see(field(page));
  await page.goto(`${t.bed.url}/#token=replaced`);
  await see(overview(page));
});

test("signing out in one tab signs out in the other", async () => {
  const page = await t.visit();
  const other = await page.context().newPage();
  await other.goto(t.bed.url);
  await see(overview(other));
  await other.getByRole("button", { name: "Sign out" }).click();
  await see(field(page));
});

test("signing out forgets the token", async () => {
  const page = await t.visit();
  await page.getByRole("button", { name: "Sign out" }).click();
  await see(field(page));
  await gone(page.getByText("does not accept this token"));
  assert.equal(await page.evaluate(() => localStorage.getItem("bramble.token")), null);
});
