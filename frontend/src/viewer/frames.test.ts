import { describe, expect, it } from "vitest";
import { boxBetween, isInside, pointAt, scaleOf, toScreen, toSlice, transformThrough, type Transform } from "./frames";

const TRANSFORMS: Record<string, Transform> = {
  identity: { a: 1, b: 0, c: 0, d: 1, e: 0, f: 0 },
  "zoomed and panned": { a: 3, b: 0, c: 0, d: 3, e: -40, f: 17.5 },
  "pixels twice as high as wide": { a: 2, b: 0, c: 0, d: 4, e: 10, f: 10 },
  turned: { a: 0, b: 2, c: -2, d: 0, e: 100, f: 0 },
  mirrored: { a: -1.5, b: 0, c: 0, d: 1.5, e: 300, f: 0 },
};
const SIZE = { height: 30, width: 40 };

describe.each(Object.entries(TRANSFORMS))("%s", (_name, transform) => {
  it("goes there and back", () => {
    const back = toSlice(transform, toScreen(transform, { x: 12.25, y: 7.75 }));
    expect(back.x).toBeCloseTo(12.25, 9);
    expect(back.y).toBeCloseTo(7.75, 9);
  });

  it("is known from three points", () => {
    const [corner, right, below] = [{ x: 0, y: 0 }, { x: 1, y: 0 }, { x: 0, y: 1 }].map((at) => toScreen(transform, at));
    if (!corner || !right || !below) throw new Error("unreachable");
    expect(transformThrough(corner, right, below)).toEqual(transform);
  });
});

describe("prompts", () => {
  it.each([
    [{ x: 3.0, y: 5.0 }, 3, 5],
    [{ x: 3.99, y: 5.01 }, 3, 5],
  ])("a click at %j names the pixel it lies on", (at, x, y) => {
    expect(pointAt(at, { positive: true })).toEqual({ x, y, positive: true });
  });

  it("a box holds every pixel that was touched, in either direction of the drag", () => {
    const box = { x0: 3, y0: 5, x1: 11, y1: 10 };
    expect(boxBetween({ x: 3.2, y: 5.9 }, { x: 10.1, y: 9.5 }, SIZE)).toEqual(box);
    expect(boxBetween({ x: 10.1, y: 9.5 }, { x: 3.2, y: 5.9 }, SIZE)).toEqual(box);
  });

  it("a box ends at the slice's edge, and outside it there is none", () => {
    expect(boxBetween({ x: -8, y: -8 }, { x: 99, y: 99 }, SIZE)).toEqual({ x0: 0, y0: 0, x1: 40, y1: 30 });
    expect(boxBetween({ x: 50, y: 3 }, { x: 60, y: 9 }, SIZE)).toBeNull();
  });

  it("knows the slice's inside", () => {
    expect(isInside({ x: 0, y: 0 }, SIZE)).toBe(true);
    expect(isInside({ x: 40, y: 0 }, SIZE)).toBe(false);
    expect(isInside({ x: -0.1, y: 4 }, SIZE)).toBe(false);
  });

  it("knows how large a slice pixel is on screen", () => {
    expect(scaleOf({ a: 0, b: 2, c: -2, d: 0, e: 1, f: 1 })).toBe(2);
  });
});
