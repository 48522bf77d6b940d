import { expect, test } from "vitest";
import { bytesPerSecond, timeInWords, withSample, type Sample } from "./pace";

const over = (...samples: Sample[]) => samples.reduce<Sample[]>(withSample, []);

test("speed is that of the last seconds", () => {
  expect(bytesPerSecond(over({ at: 0, bytes: 0 }, { at: 30_000, bytes: 100 }, { at: 32_000, bytes: 300 }))).toBe(100);
});

test("too little time tells no speed", () => {
  expect(bytesPerSecond([])).toBeUndefined();
  expect(bytesPerSecond(over({ at: 0, bytes: 0 }, { at: 500, bytes: 9 }))).toBeUndefined();
});

test("what goes back begins anew", () => {
  expect(over({ at: 0, bytes: 0 }, { at: 2_000, bytes: 9 }, { at: 3_000, bytes: 4 })).toEqual([{ at: 3_000, bytes: 4 }]);
});

test.each([[5, "less than a minute"], [90, "about 2 min"], [5400, "about 1.5 h"]])("%i s in words", (seconds, words) => {
  expect(timeInWords(seconds)).toBe(words);
});
