// What the viewer says of pixels of the first slice of tasks, in a real browser. Driven by test_grey_values.py.
import { launch, signedIn, tell, valuesAt } from "./browser.mjs";

const { url, browser: executablePath, person, tasks } = JSON.parse(process.argv[2]);

const JPEG_LS = "1.2.840.10008.1.2.4.80";

const browser = await launch(executablePath);
try {
  const page = await signedIn(browser, url, person, { width: 900, height: 600 }); // drawn by the processor: small is fast
  const frames = [];
  page.on("response", (answer) => {
    if (answer.url().includes("/frames/")) frames.push(answer.body().catch(() => Buffer.alloc(0))); // left behind: no matter
  });
  for (const { id, points } of tasks) {
    // Within the page: loading it anew for each would take longer than all else.
    const before = await page.$("[data-testid=viewer]");
    await page.evaluate((path) => {
      history.pushState({}, "", path);
      dispatchEvent(new PopStateEvent("popstate", { state: {} }));
    }, `/tasks/${id}`);
    await before?.waitForElementState("hidden");
    await page.locator("[data-testid=viewer][data-shown], [data-testid=viewer-problem]").waitFor();
    await page.keyboard.press("Home"); // a task opens in the middle of its series
    await page.locator("[data-testid=viewer][data-shown='0'], [data-testid=viewer-problem]").waitFor();
    const problem = page.getByTestId("viewer-problem");
    if (await problem.isVisible()) tell("problem", { id, problem: await problem.textContent() });
    else tell("seen", { id, values: await valuesAt(page, points) });
  }
  // What a frame is compressed with stands above it.
  const heads = (await Promise.all(frames)).map((body) => body.subarray(0, 400).toString("latin1"));
  tell("end", { compressed: heads.filter((head) => head.includes(`transfer-syntax=${JPEG_LS}`)).length });
} finally {
  await browser.close();
}
