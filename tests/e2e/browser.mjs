// The browser and the pages' first steps, for every script here.
import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../../frontend/package.json", import.meta.url))("playwright-core");

// Killed processes come back, and what they owed is sent again after half a minute of silence.
export const PATIENCE_MS = 120_000;
const FLAGS = [
  "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
  "--disable-background-networking", "--disable-quic", "--no-first-run", "--disable-component-update",
  "--disable-sync",
];

export function launch(executablePath) {
  return chromium.launch({ executablePath, args: FLAGS });
}

/** A page on which somebody has signed in. */
export async function signedIn(browser, url, person, viewport = { width: 1440, height: 900 }) {
  const page = await (await browser.newContext({ viewport })).newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => tell("page error", { message: String(error) }));
  await page.goto(url);
  await fillSignIn(page, person);
  await page.getByRole("heading", { name: "Projects", exact: true }).waitFor();
  return page;
}

export async function fillSignIn(page, { username, password }) {
  await page.getByLabel("User name").fill(username);
  await page.getByLabel("Password").first().fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Where on the page pixels of the slice are, by their middles. */
export async function onPage(page, points) {
  const overlay = page.getByTestId("viewer-overlay");
  const { a, b, c, d, e, f } = JSON.parse(await overlay.getAttribute("data-transform"));
  const box = await overlay.boundingBox();
  return points.map(([x, y]) => [box.x + a * (x + 0.5) + c * (y + 0.5) + e, box.y + b * (x + 0.5) + d * (y + 0.5) + f]);
}

/** What the viewer says of pixels under the pointer: of each one value, or three of colour. */
export async function valuesAt(page, points) {
  const places = await onPage(page, points);
  // Moved within the page: over the wire each move takes longer than the viewer's answer.
  const said = await page.evaluate((all) => {
    const overlay = document.querySelector("[data-testid=viewer-overlay]");
    const readout = document.querySelector("[data-testid=pixel-readout]");
    return all.map(([clientX, clientY]) => {
      overlay.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX, clientY }));
      return readout.textContent;
    });
  }, places);
  return said.map((text, index) => {
    const [, column, row, values] = /^x (\d+) {2}y (\d+) {3}([-\d. ]+?)( HU)?$/.exec(text) ?? [];
    const [x, y] = points[index];
    if (Number(column) !== x || Number(row) !== y) throw new Error(`Over pixel ${x}, ${y} the viewer says "${text}"`);
    return values.split(" ").map(Number);
  });
}

export async function until(claim, what) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await claim())) {
    if (Date.now() > deadline) throw new Error(`This did not come true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A line for the test that drives the script. */
export function tell(at, data) {
  process.stdout.write(`${JSON.stringify({ at, ...data })}\n`);
}
