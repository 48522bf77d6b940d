import { expect, test } from "vitest";
import { chosenLines, fatesOf, reasonsOf } from "./uploadLines";

const line = (file: number, fate: string, code = "") => ({ file, fate, code, message: "" });
const REPORT = [
  line(1, "stored"), line(2, "refused", "link"), line(3, "refused", "not_dicom"), line(4, "refused", "not_dicom"),
  line(5, "skipped", "litter"),
];

test("fates are counted, what has to be looked at first", () => {
  expect(fatesOf(REPORT)).toEqual([
    { fate: "refused", files: 3 }, { fate: "skipped", files: 1 }, { fate: "stored", files: 1 },
  ]);
});

test("reasons are counted, the most frequent first", () => {
  expect(reasonsOf(REPORT, "refused")).toEqual([{ code: "not_dicom", files: 2 }, { code: "link", files: 1 }]);
  expect(reasonsOf(REPORT, "stored")).toEqual([]);
});

test("lines are chosen by fate and reason", () => {
  expect(chosenLines(REPORT, { fate: "refused" }).map(({ file }) => file)).toEqual([2, 3, 4]);
  expect(chosenLines(REPORT, { fate: "refused", code: "link" }).map(({ file }) => file)).toEqual([2]);
});
