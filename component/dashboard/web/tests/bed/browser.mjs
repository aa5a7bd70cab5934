/** One Chromium for a test file, a fresh profile for each test, and everything that goes wrong on a page made to fail the test. */
import { chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Generous: it is met only when something is broken, never measured. */
const PATIENCE_MS = 20_000;

export async function launch() {
  return chromium.launch({ executablePath: EXECUTABLE, args: FLAGS });
}

/** A page whose errors, refused scripts and styles are kept in `page.troubles`. */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, colorScheme: "light", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.troubles = [];
  page.on("pageerror", (error) => page.troubles.push(String(error)));
  page.on("console", (message) => {
    // A status of 4xx or 5xx and a lost connection are logged by the browser itself; tests cause them on purpose.
    if (message.type() === "error" && !/Failed to load resource|net::ERR/.test(message.text())) page.troubles.push(message.text());
  });
  return page;
}
