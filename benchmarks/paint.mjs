// How long a mask takes from its arrival in the page to the next drawn frame, in software-rendered
// Chromium; of the task with the largest slices.
//
//     node benchmarks/paint.mjs --url http://127.0.0.1:8700 --var var [--clicks 60]
//
// Import a 512 x 512 series first, if the demo's slices are too small to tell:
//     .venv/bin/delineate import PATH --project Demo --as demo-lead
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const { chromium } = createRequire(new URL("../frontend/package.json", import.meta.url))("playwright-core");
const { values } = parseArgs({
  options: {
    url: { type: "string", default: "http://127.0.0.1:8700" },
    var: { type: "string", default: "var" },
    clicks: { type: "string", default: "60" },
    browser: { type: "string", default: "/usr/bin/chromium" },
  },
});
const MEASURE = "mask-received→drawn";
const WARM_UP = 5;
const FLAGS = [
  "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
  "--disable-background-networking", "--disable-quic", "--no-first-run", "--disable-component-update",
  "--disable-sync",
];

const [username, password] = readFileSync(`${values.var}/demo-sign-ins.txt`, "utf8").split("\n")[0].split(/\s+/);
const browser = await chromium.launch({ executablePath: values.browser, args: FLAGS });
// A view in which a 512 x 512 slice is shown at about its own size.
const page = await browser.newPage({ viewport: { width: 920, height: 680 } });
await page.goto(values.url);
await page.getByLabel("User name").fill(username);
await page.getByLabel("Password").first().fill(password);
await page.getByRole("button", { name: "Sign in" }).click();
await page.getByRole("heading", { name: "Projects", exact: true }).waitFor();

const task = await page.evaluate(async () => {
  const get = async (path) => (await fetch(path)).json();
  const tasks = [];
  for (const project of await get("/api/projects")) tasks.push(...(await get(`/api/projects/${project.id}/tasks`)));
  const details = await Promise.all(tasks.map(({ id }) => get(`/api/tasks/${id}`)));
  details.sort((a, b) => b.series.rows * b.series.columns - a.series.rows * a.series.columns);
  return { id: details[0].id, rows: details[0].series.rows, columns: details[0].series.columns };
});
await page.goto(`${values.url}/tasks/${task.id}`);
await page.locator("[data-testid=viewer][data-shown]").waitFor();
const view = await page.getByTestId("viewer-overlay").boundingBox();
await page.getByTestId("tool-positive").click();

for (let click = 0; click < WARM_UP + Number(values.clicks); click += 1) {
  if (click === WARM_UP) await page.evaluate(() => performance.clearMeasures());
  const before = await page.evaluate((name) => performance.getEntriesByName(name).length, MEASURE);
  const angle = (click * 2 * Math.PI) / 13;
  await page.mouse.click(view.x + view.width / 2 + 60 * Math.cos(angle), view.y + view.height / 2 + 60 * Math.sin(angle));
  await page.waitForFunction(
    ([name, count]) => performance.getEntriesByName(name).length > count,
    [MEASURE, before],
    { timeout: 60_000 },
  );
  await page.locator("[data-testid=save-state][data-state=saved]").waitFor();
  if (click % 10 === 9) {
    await page.getByTestId("clear").click();
    await page.locator("[data-testid=save-state][data-state=saved]").waitFor();
  }
}
const times = (await page.evaluate((name) => performance.getEntriesByName(name).map(({ duration }) => duration), MEASURE)).sort((a, b) => a - b);
const percentile = (share) => times[Math.min(times.length - 1, Math.floor(share * times.length))].toFixed(1);
console.log("| slice | view | masks | p50 ms | p95 ms |\n|---|---|---|---|---|");
console.log(
  `| ${task.columns} x ${task.rows} | ${Math.round(view.width)} x ${Math.round(view.height)} | ${times.length} | ${percentile(0.5)} | ${percentile(0.95)} |`,
);
await browser.close();
