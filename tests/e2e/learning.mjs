// A lead at the tab of the model: train, look, let the new model answer, compare, and go back.
// Driven by test_learning.py, which looks at the server where this script waits for "go".
import { mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { PATIENCE_MS, launch, signedIn, tell, until } from "./browser.mjs";

const { url, browser: executablePath, project, person, folder } = JSON.parse(process.argv[2]);

// A minute of training, and as much to judge it, on a machine that does other things, too.
const LEARNT_WITHIN_MS = 5 * PATIENCE_MS;
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
mkdirSync(`${folder}/shots`, { recursive: true });
const browser = await launch(executablePath);
const page = await signedIn(browser, url, person, { width: 1440, height: 1100 });

try {
  await suggests();
  await trains();
  await promotes();
  await compares();
  await rollsBack();
  tell("end", {});
} catch (error) {
  await shot("failed").catch(() => undefined);
  throw error;
} finally {
  await browser.close();
}
process.exit(0);

async function suggests() {
  await page.goto(`${url}/projects/${project}/tasks`);
  await page.getByRole("button", { name: /Suggested next/ }).click();
  await page.getByLabel("What to look for").first().click();
  await page.getByRole("option", { name: "Where the model is unsure" }).click();
  await page.getByRole("button", { name: "Suggest", exact: true }).click();
  await page.getByTestId("suggested-slice").first().waitFor({ timeout: PATIENCE_MS });
  await pictures("suggested-slice");
  await shot("suggested-next");
}

async function trains() {
  await page.getByRole("tab", { name: "Model" }).click();
  await page.getByText("No runs yet").waitFor();
  await page.getByRole("button", { name: "Train now" }).click();
  const row = page.getByTestId("run-row");
  await row.getByText(/Trains: epoch \d+, step [1-9]/).waitFor({ timeout: PATIENCE_MS });
  await page.getByRole("button", { name: "Details" }).click();
  const run = page.getByRole("dialog");
  await run.getByText("Loss by step").waitFor({ state: "attached", timeout: PATIENCE_MS });
  await page.keyboard.press("Escape");
  // Nobody watches it to its end; and drawing what moves takes the core that learns.
  await page.getByRole("tab", { name: "Labels" }).click();
  await pause("it trains");
  await page.getByRole("tab", { name: "Model" }).click();
  await page.locator("[data-testid=run-row][data-state=done]").waitFor();
  await page.getByRole("button", { name: "Details" }).click();
  await run.getByTestId("judgement").waitFor();
  await shot("run");
  await page.keyboard.press("Escape");
}

async function promotes() {
  const [made] = await models();
  await made.getByRole("button", { name: "Let it answer" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Let it answer" }).click();
  await made.getByText("answers now").waitFor({ timeout: PATIENCE_MS });
  await shot("model");
  await pause("another model answers");
}

async function compares() {
  await page.getByRole("button", { name: "Compare…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Compare", exact: true }).click();
  await page.locator("[data-testid=comparison][data-state=done]").waitFor({ timeout: LEARNT_WITHIN_MS });
  await page.getByTestId("compared-mask").first().waitFor();
  await pictures("compared-mask");
  await page.getByTestId("comparison").evaluate((section) => section.scrollIntoView());
  await page.mouse.wheel(0, -80); // from below the header
  await shot("comparison");
  await page.getByRole("button", { name: "Close the comparison" }).click();
  await page.getByTestId("comparisons").getByText(/against/).waitFor();
}

async function rollsBack() {
  await pause("people are at work");
  await page.getByRole("button", { name: "Roll back" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Roll back" }).click();
  const [made, before] = await models();
  await before.getByText("answers now").waitFor({ timeout: PATIENCE_MS });
  if (await made.getByText("answers now").isVisible()) throw new Error("Two models answer");
  await pause("the one before answers again");
}

/** The newest first: the one that was made, and the one it was made from. */
async function models() {
  const all = page.getByTestId("project-model");
  await until(async () => (await all.count()) >= 2, "the tab shows the model that was made");
  return [all.nth(0), all.nth(1)];
}

/** Until all images of these are drawn. */
async function pictures(testId) {
  const drawn = (images) => images.every((image) => image.complete && image.naturalWidth > 0);
  const images = page.getByTestId(testId).locator("img");
  for (const image of await images.all()) await image.scrollIntoViewIfNeeded();
  await until(async () => images.evaluateAll(drawn), `the pictures of ${testId} are drawn`);
}

async function shot(name) {
  await page.evaluate(() =>
    Promise.allSettled(document.getAnimations().filter((each) => each instanceof CSSTransition).map(({ finished }) => finished)),
  );
  await page.screenshot({ path: `${folder}/shots/${name}.png` });
}

async function pause(at) {
  tell(at, {});
  await answers.next();
}
