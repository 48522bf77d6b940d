import { describe, expect, test } from "vitest";
import { areaBetween, boxInWords, isOn, previewUrl, toSlicePoint } from "./blackBoxes";

const SIZE = { columns: 640, rows: 480 };
const ON_SCREEN = { left: 100, top: 50, width: 320, height: 120 };

describe("a pointer on a slice that is shown", () => {
  test.each([
    [100, 50, 0, 0],
    [420, 170, 640, 480],
    [260, 80, 320, 120],
  ])("at %d, %d is at %d, %d", (clientX, clientY, x, y) => {
    expect(toSlicePoint({ clientX, clientY }, ON_SCREEN, SIZE)).toEqual({ x, y });
  });
});

describe("what lies between two corners", () => {
  test("is every pixel that is touched, whichever corner came first", () => {
    const area = { x0: 10, y0: 20, x1: 31, y1: 41 };
    expect(areaBetween({ x: 10.6, y: 20.2 }, { x: 30.1, y: 40.9 }, SIZE)).toEqual(area);
    expect(areaBetween({ x: 30.1, y: 40.9 }, { x: 10.6, y: 20.2 }, SIZE)).toEqual(area);
  });

  test("ends where the slice ends", () => {
    expect(areaBetween({ x: -5, y: -5 }, { x: 900, y: 900 }, SIZE)).toEqual({ x0: 0, y0: 0, x1: 640, y1: 480 });
  });

  test.each([
    [{ x: 10, y: 10 }, { x: 10, y: 10 }],
    [{ x: 700, y: 10 }, { x: 800, y: 20 }],
    [{ x: 10, y: -20 }, { x: 20, y: -1 }],
  ])("is nothing between %o and %o", (one, other) => {
    expect(areaBetween(one, other, SIZE)).toBeNull();
  });
});

describe("a box", () => {
  const box = { x0: 2, y0: 1, x1: 12, y1: 5, first: 1, last: 2 };

  test("lies on its slices alone", () => {
    expect([0, 1, 2, 3].map((index) => isOn(box, index))).toEqual([false, true, true, false]);
  });

  test.each([
    [{ first: 0, last: 3 }, 4, "10 × 4 on all 4 slices"],
    [{ first: 2, last: 2 }, 4, "10 × 4 on slice 3"],
    [{ first: 1, last: 2 }, 4, "10 × 4 on slices 2 to 3"],
    [{ first: 0, last: 0 }, 1, "10 × 4"],
  ])("on %o of %d is called %s", (where, slices, words) => {
    expect(boxInWords({ ...box, ...where }, slices)).toBe(words);
  });
});

test("a preview is of a slice, or of all", () => {
  expect(previewUrl("a", { index: 0, side: 360 })).toBe("/api/series/a/preview?index=0&side=360");
  expect(previewUrl("a", { side: 360 })).toBe("/api/series/a/preview?brightest=true&side=360");
});
