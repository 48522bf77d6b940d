import { describe, expect, it } from "vitest";
import { area, decode, union } from "./masks";
import { sweepDisc } from "./strokes";

const SLICE = { height: 20, width: 30 };

describe("a swept disc", () => {
  it("of half a pixel marks the pixel it stands on", () => {
    const { pixels } = decode(sweepDisc([{ x: 4.5, y: 7.5 }], { ...SLICE, radius: 0.5 }));
    expect([...pixels].indexOf(1)).toBe(7 * 30 + 4);
    expect(pixels.reduce((sum, value) => sum + value, 0)).toBe(1);
  });

  it("covers a disc's area", () => {
    const mask = sweepDisc([{ x: 15, y: 10 }], { ...SLICE, radius: 6 });
    expect(Math.abs(area(mask) - Math.PI * 36)).toBeLessThan(6);
  });

  it("leaves no gap between far positions of the pointer", () => {
    const mask = sweepDisc([{ x: 3, y: 10.5 }, { x: 27, y: 10.5 }], { ...SLICE, radius: 2 });
    const { pixels } = decode(mask);
    const row = pixels.slice(10 * 30, 11 * 30);
    expect([...row.slice(2, 28)].every((value) => value === 1)).toBe(true);
  });

  it("is the union of its parts", () => {
    const [a, b, c] = [{ x: 5, y: 5 }, { x: 20, y: 9 }, { x: 12, y: 17 }];
    const whole = sweepDisc([a, b, c], { ...SLICE, radius: 3 });
    const parts = union(sweepDisc([a, b], { ...SLICE, radius: 3 }), sweepDisc([b, c], { ...SLICE, radius: 3 }));
    expect(whole).toEqual(parts);
  });

  it("ends at the slice's edge", () => {
    expect(area(sweepDisc([{ x: -20, y: -20 }], { ...SLICE, radius: 4 }))).toBe(0);
    expect(area(sweepDisc([{ x: 0, y: 0 }], { ...SLICE, radius: 4 }))).toBeGreaterThan(0);
  });
});
