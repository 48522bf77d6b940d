// The main job in a real browser: upload, delineate, review, export. Driven by test_story.py, which
// kills processes at the points where this script says so and waits for "go" on its standard input.
import { mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { PATIENCE_MS, fillSignIn, launch, onPage, signedIn, tell, until, valuesAt } from "./browser.mjs";

const { url, browser: executablePath, zip, ward, written, folder, people } = JSON.parse(process.argv[2]);

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
mkdirSync(`${folder}/shots`, { recursive: true });
const browser = await launch(executablePath);
let page;
let shots = 0;

try {
  await lead();
  await annotator();
  await reviewerReturns();
  await annotatorCorrects();
  await reviewerAccepts();
  await leadExports();
  await leadDropsAFolder();
  await annotatorIsKeptOut();
  await leadBlacksOut();
  await annotatorSeesNoName();
  await leadMakesAToken();
  await administratorSeesModels();
  tell("end", {});
} catch (error) {
  await shot("failed").catch(() => undefined);
  throw error;
} finally {
  await browser.close();
}
process.exit(0);

async function lead() {
  await signIn(people.lead);
  await page.getByRole("button", { name: "New project" }).first().click();
  await page.getByLabel("Name").fill("Heads");
  await page.getByLabel("Labels").fill("brain, skull");
  await page.getByRole("button", { name: "Create project" }).click();
  await page.getByRole("tab", { name: "Members" }).click();
  for (const [person, role] of [["annotator", "Annotator"], ["reviewer", "Reviewer"]]) {
    await page.getByLabel("Add somebody").fill(people[person].username);
    await page.getByLabel("Role", { exact: true }).first().click();
    await page.getByRole("option", { name: new RegExp(`^${role}`) }).click();
    await page.getByRole("button", { name: "Add member" }).click();
    await page.getByRole("cell", { name: people[person].username, exact: true }).first().waitFor();
  }
  await shot("members");

  await page.getByRole("tab", { name: "Studies" }).click();
  await page.getByTestId("upload-input").setInputFiles(zip);
  const upload = page.getByTestId("upload").first();
  await upload.waitFor({ timeout: PATIENCE_MS });
  await pause("upload acknowledged");
  await page.locator("[data-testid=upload][data-state=done]").waitFor({ timeout: PATIENCE_MS });
  await page.getByTestId("series-row").first().waitFor();
  await page.getByText("ready", { exact: true }).first().waitFor({ timeout: PATIENCE_MS });
  await shot("studies");
}

async function annotator() {
  await signIn(people.annotator);
  await openNext("Go on with the next one");
  await page.locator("[data-testid=viewer][data-shown]").waitFor({ timeout: PATIENCE_MS });

  // Scroll by the wheel, set the window, and see that both took effect.
  const first = await textOf("slice-indicator");
  await page.mouse.move(...(await at(0.5, 0.5)));
  for (let i = 0; i < 5; i += 1) await page.mouse.wheel(0, 120);
  await until(async () => (await textOf("slice-indicator")) !== first, "the wheel scrolls");
  const window = await textOf("window-values");
  await page.getByRole("button", { name: "Bone" }).click();
  await until(async () => (await textOf("window-values")) !== window, "the window changes");
  await page.getByRole("button", { name: "Default" }).click();

  // Points: one on the structure, one beside it; then a box.
  await useTool("positive");
  await click(0.45, 0.4);
  await answered("a point");
  await useTool("negative");
  await click(0.75, 0.75);
  await answered("a second point");
  await useTool("box");
  await drag([0.3, 0.3], [0.6, 0.6]);
  await answered("a box");

  // The model's process dies: what is refused says so, and asking again works once it is back.
  await pause("before a click without a worker");
  await useTool("positive");
  await click(0.5, 0.35);
  await until(async () => {
    const again = page.getByTestId("ask-again");
    if (await again.isVisible()) await again.click();
    return (await asking()) === "no";
  }, "the model answers after it was killed");

  // By hand, with undo and redo.
  await useTool("brush");
  const before = await area();
  await drag([0.35, 0.5], [0.65, 0.52]);
  await until(async () => (await area()) > before, "the brush adds");
  const drawn = await area();
  await useTool("eraser");
  await drag([0.4, 0.51], [0.5, 0.51]);
  await until(async () => (await area()) < drawn, "the eraser removes");
  const erased = await area();
  await page.keyboard.press("Control+z");
  await until(async () => (await area()) === drawn, "undo");
  await page.keyboard.press("Control+Shift+z");
  await until(async () => (await area()) === erased, "redo");
  await saved();
  await shot("proposal");

  // The web process dies while a stroke is on its way; the page brings it home by itself.
  await pause("before a stroke without a server");
  await useTool("brush");
  await drag([0.35, 0.6], [0.65, 0.6]);
  await until(async () => (await area()) > erased, "the brush adds without a server");
  const kept = await area();
  await saved();
  await page.reload();
  await page.locator("[data-testid=viewer][data-shown]").waitFor({ timeout: PATIENCE_MS });
  await goToSliceWithDraft(kept);
  await useTool("brush");
  await page.keyboard.press("Control+z");
  await until(async () => (await area()) === erased, "undo reaches back before the reload");
  await page.keyboard.press("Control+Shift+z");
  await until(async () => (await area()) === kept, "redo");
  await saved();

  // Accept, go on to the next slice by itself, a second label, a third slice.
  await accept();
  await useTool("box");
  await drag([0.35, 0.35], [0.6, 0.55]);
  await answered("a box on the next slice");
  await accept();
  await page.getByTestId("label-skull").click();
  await useTool("brush");
  await stroke(aroundTheHead());
  await until(async () => (await area()) > 0, "the brush draws the second label");
  await saved();
  await shot("workspace");
  await accept();
  await page.getByTestId("submit").click();
  await page.getByTestId("verdict-confirm").click();
  await page.locator("[data-testid=task-state][data-state=submitted]").waitFor({ timeout: PATIENCE_MS });
}

async function reviewerReturns() {
  await signIn(people.reviewer);
  await openNext("Review the next one");
  await page.getByTestId("review-return").click();
  await page.getByTestId("verdict-comment").fill("The skull is too thin on the third slice.");
  await page.getByTestId("verdict-confirm").click();
  await page.locator("[data-testid=task-state][data-state=returned]").waitFor({ timeout: PATIENCE_MS });
}

async function annotatorCorrects() {
  await signIn(people.annotator);
  await openNext("Go on with the next one");
  await page.getByText("The skull is too thin on the third slice.").first().waitFor();
  await page.locator("[data-testid=viewer][data-shown]").waitFor({ timeout: PATIENCE_MS });
  await page.getByTestId("label-skull").click();
  await goToSliceWithMark("accepted");
  const before = await area();
  await useTool("brush");
  await drag([0.3, 0.33], [0.7, 0.33]);
  await until(async () => (await area()) > before, "the correction is drawn");
  await saved();
  await accept();
  await page.getByTestId("submit").click();
  await page.getByTestId("verdict-confirm").click();
  await page.locator("[data-testid=task-state][data-state=submitted]").waitFor({ timeout: PATIENCE_MS });
}

async function reviewerAccepts() {
  await signIn(people.reviewer);
  await openNext("Review the next one");
  await page.getByTestId("review-accept").click();
  await page.getByTestId("verdict-confirm").click();
  await page.locator("[data-testid=task-state][data-state=accepted]").waitFor({ timeout: PATIENCE_MS });
  await shot("accepted");
}

async function leadExports() {
  await signIn(people.lead);
  await page.locator("main").getByText("Heads").click();
  await page.getByRole("tab", { name: "Exports" }).click();
  await page.getByText("Nothing exported yet").waitFor();

  // The session ends elsewhere: signing in again leads back to where one was.
  await page.context().clearCookies({ name: /session/ });
  await page.getByRole("button", { name: "Export", exact: true }).click();
  await fillSignIn(page, people.lead);
  for (const [format, name] of [
    ["nifti", "NIfTI, one file per label"],
    ["png", "PNG, one mask per slice and label"],
    ["dicom_seg", "DICOM Segmentation"],
  ]) {
    await page.getByLabel("Format").first().click();
    await page.getByRole("option", { name, exact: true }).click();
    await page.getByRole("button", { name: "Export", exact: true }).click();
    const row = page.locator("[data-testid=export-row][data-state=done]").filter({ hasText: name });
    await row.waitFor({ timeout: PATIENCE_MS });
    const download = page.waitForEvent("download");
    await row.getByRole("link", { name: /Download/ }).click();
    await (await download).saveAs(`${folder}/${format}.zip`);
  }
  await shot("exports");
}

async function leadDropsAFolder() {
  await signIn(people.lead);
  await page.locator("main").getByText("Heads").click();
  await page.getByTestId("folder-input").setInputFiles(ward);
  const upload = page.locator("[data-testid=upload][data-state=done]").filter({ hasText: "in quarantine" });
  await upload.waitFor({ timeout: PATIENCE_MS });
  await page.getByTestId("held-notice").getByText("2 series").waitFor();
  await upload.click();
  await page.getByRole("cell", { name: "ward/letter.txt" }).waitFor();
  await shot("uploads");
  await page.getByRole("tab", { name: "Quarantine" }).click();
  await until(async () => (await page.getByTestId("held-series").count()) === 2, "the film and the picture are held");
  await picturesAreLoaded();
  await shot("quarantine");
  await page.getByRole("tab", { name: "Subjects" }).click();
  await until(async () => (await page.getByTestId("subject-row").count()) === 4, "everybody is a subject");
  await shot("subjects");
  await page.getByRole("tab", { name: "Settings" }).click();
  await page.getByText("Way back to the patients").waitFor();
  await shot("privacy");
}

async function annotatorIsKeptOut() {
  await signIn(people.annotator);
  await page.locator("main").getByText("Heads").click();
  const held = page.getByTestId("series-row").filter({ hasText: "in quarantine" });
  await until(async () => (await held.count()) === 2, "an annotator sees that two series are held");
  await until(async () => (await page.getByTestId("series-row").filter({ hasText: "Open" }).count()) >= 2, "others can be opened");
  if ((await held.getByRole("button").count()) > 0) throw new Error("An annotator is offered to open what is held");
  if ((await page.getByRole("tab", { name: "Quarantine" }).count()) > 0) throw new Error("An annotator has a quarantine");
}

async function leadBlacksOut() {
  await signIn(people.lead);
  await page.locator("main").getByText("Heads").click();
  await page.getByRole("tab", { name: "Quarantine" }).click();
  const film = page.getByTestId("held-series").filter({ hasText: "US" });
  await film.getByRole("button", { name: "Black out" }).click();
  await picturesAreLoaded();
  const canvas = await page.getByTestId("black-out-canvas").boundingBox();
  const [left, top, right, bottom] = written.box;
  const at = (x, y) => [canvas.x + (x / written.columns) * canvas.width, canvas.y + (y / written.rows) * canvas.height];
  await page.mouse.move(...at(left, top));
  await page.mouse.down();
  await page.mouse.move(...at((left + right) / 2, bottom));
  await page.mouse.move(...at(right, bottom));
  await page.mouse.up();
  await shot("black-out");
  await page.getByRole("button", { name: "Black out 1 box and release" }).click();
  await film.waitFor({ state: "detached", timeout: PATIENCE_MS });
}

async function annotatorSeesNoName() {
  await signIn(people.annotator);
  await page.locator("main").getByText("Heads").click();
  await page.getByTestId("series-row").filter({ hasText: "US" }).getByRole("button", { name: "Open" }).click();
  await page.locator("[data-testid=viewer][data-shown]").waitFor({ timeout: PATIENCE_MS });
  const [left, top, right, bottom] = written.box;
  for (const key of ["Home", "End"]) {
    await page.keyboard.press(key);
    const shown = key === "Home" ? 0 : written.frames - 1;
    await page.locator(`[data-testid=viewer][data-shown="${shown}"]`).waitFor({ timeout: PATIENCE_MS });
    const within = [];
    for (let y = top; y < bottom; y += 1) for (let x = left; x < right; x += 2) within.push([x, y]);
    const values = (await valuesAt(page, within)).flat();
    if (values.some((value) => value !== 0)) throw new Error(`The box on slice ${shown} is not black: ${values}`);
  }
  const [from, to] = await onPage(page, [[left, top], [right - 1, bottom - 1]]);
  const clip = { x: from[0], y: from[1], width: to[0] - from[0], height: to[1] - from[1] };
  await page.screenshot({ path: `${folder}/black-box.png`, clip });
  await useTool("positive");
  const [structure] = await onPage(page, [written.structure]);
  await page.mouse.click(...structure);
  await answered("a point on what was in quarantine");
  await shot("after the black-out");
}

async function leadMakesAToken() {
  await signIn(people.lead);
  await page.getByRole("button", { name: people.lead.username }).click();
  await page.getByRole("menuitem", { name: "API tokens" }).click();
  await page.getByRole("button", { name: "Make a token" }).first().click();
  await page.getByLabel("Name").fill("Scanner gateway");
  await page.getByRole("button", { name: "Make", exact: true }).click();
  const token = await page.getByRole("textbox", { name: "Token" }).inputValue();
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByTestId("token-row").filter({ hasText: "Scanner gateway" }).waitFor();
  await shot("tokens");
  const answer = await fetch(`${url}/api/projects`, { headers: { Authorization: `Bearer ${token}` } });
  const [project] = await answer.json();
  if (project?.name !== "Heads") throw new Error("The token does not lead to its person's projects");
}

async function signIn(person) {
  await page?.context().close();
  page = await signedIn(browser, url, person);
}

async function picturesAreLoaded() {
  await until(
    () => page.evaluate(() => [...document.images].every((image) => image.complete && image.naturalWidth > 0)),
    "all pictures are there",
  );
}

async function administratorSeesModels() {
  await signIn(people.administrator);
  await page.getByRole("button", { name: people.administrator.username }).click();
  await page.getByRole("menuitem", { name: "Models" }).click();
  await page.getByTestId("model-row").first().waitFor();
  await page.getByText("default", { exact: true }).waitFor();
  await shot("models");
}

async function openNext(button) {
  await page.locator("main").getByText("Heads").click();
  await page.getByRole("tab", { name: "Tasks" }).click();
  await page.getByRole("link", { name: button }).click();
  await page.getByTestId("workspace").waitFor();
}

async function at(x, y) {
  const box = await page.getByTestId("viewer-overlay").boundingBox();
  // The image is a square in the middle of the view.
  const side = Math.min(box.width, box.height);
  return [box.x + box.width / 2 + (x - 0.5) * side, box.y + box.height / 2 + (y - 0.5) * side];
}

async function click(x, y) {
  await page.mouse.click(...(await at(x, y)));
}

async function drag(from, to) {
  const steps = Array.from({ length: 9 }, (_, step) => step / 8);
  await stroke(steps.map((share) => [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share]));
}

async function stroke([first, ...others]) {
  await page.mouse.move(...(await at(...first)));
  await page.mouse.down();
  for (const point of others) await page.mouse.move(...(await at(...point)));
  await page.mouse.up();
}

/** Where the skull is on the GE CT's slice of that moment; on any other image a ring is as good. */
function aroundTheHead() {
  return Array.from({ length: 49 }, (_, step) => {
    const angle = (2 * Math.PI * step) / 48;
    const radius = 0.298 - 0.0115 * Math.cos(2 * angle + 0.66);
    return [0.489 + radius * Math.cos(angle), 0.56 + radius * Math.sin(angle)];
  });
}

async function useTool(tool) {
  await page.getByTestId(`tool-${tool}`).click();
}

async function area() {
  return Number(await page.getByTestId("mask-area").getAttribute("data-pixels"));
}

async function asking() {
  return page.getByTestId("model-answer").getAttribute("data-asking");
}

async function textOf(testId) {
  return (await page.getByTestId(testId).textContent()) ?? "";
}

async function answered(what) {
  await until(async () => (await asking()) === "no" && /IoU/.test(await textOf("model-answer")), `the model answers ${what}`);
  await saved();
}

async function saved() {
  await page.locator("[data-testid=save-state][data-state=saved][data-connection=open]").waitFor({ timeout: PATIENCE_MS });
}

async function accept() {
  const slice = await textOf("slice-indicator");
  await page.getByTestId("accept").click();
  await until(async () => (await textOf("slice-indicator")) !== slice, "accepting goes on to the next slice");
}

async function goToSliceWithDraft(pixels) {
  await page.keyboard.press("Home");
  await until(async () => {
    if ((await area()) === pixels) return true;
    await page.keyboard.press("ArrowDown");
    return false;
  }, "the draft is there after a reload");
}

async function goToSliceWithMark(mark) {
  await page.keyboard.press("Home");
  await until(async () => {
    if ((await page.getByTestId("mask-state").getAttribute("data-mark")) === mark) return true;
    await page.keyboard.press("ArrowDown");
    return false;
  }, "an accepted mask is found");
}

async function shot(name) {
  shots += 1;
  // What is opening is open in the picture.
  await page.evaluate(() =>
    Promise.allSettled(document.getAnimations().filter((each) => each instanceof CSSTransition).map(({ finished }) => finished)),
  );
  await page.screenshot({ path: `${folder}/shots/${String(shots).padStart(2, "0")}-${name.replaceAll(" ", "-")}.png` });
}

async function pause(at) {
  tell(at, {});
  await answers.next();
}
