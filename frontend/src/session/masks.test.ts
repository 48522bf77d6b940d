import { describe, expect, it } from "vitest";
import { area, compose, decode, empty, encode, isSame, subtract, union, type RunLengths } from "./masks";

const draw = (...rows: string[]): RunLengths =>
  encode({
    height: rows.length,
    width: rows[0]?.length ?? 0,
    pixels: Uint8Array.from(Array.from(rows.join("")), (mark) => (mark === "#" ? 1 : 0)),
  });

describe("run lengths", () => {
  it.each<[string[], number[]]>([
    [["....", "...."], [8]],
    [["####", "####"], [0, 8]],
    [["#...", "...#"], [0, 1, 6, 1]],
    [[".##.", "#..."], [1, 2, 1, 1, 3]],
  ])("reads %j row by row, background first", (rows, counts) => {
    expect(draw(...rows).counts).toEqual(counts);
  });

  it("comes back from a bitmap as it went in", () => {
    const mask = draw("#..#", ".##.", "####");
    expect(encode(decode(mask))).toEqual(mask);
    expect(area(mask)).toBe(8);
  });

  it("knows an empty mask", () => {
    expect(empty(2, 3)).toEqual({ height: 2, width: 3, counts: [6] });
    expect(area(empty(2, 3))).toBe(0);
  });

  it("tells equal masks from others", () => {
    expect(isSame(draw("#."), draw("#."))).toBe(true);
    expect(isSame(draw("#."), draw(".#"))).toBe(false);
    expect(isSame(draw("#."), null)).toBe(false);
    expect(isSame(null, null)).toBe(true);
  });
});

describe("the contract's golden masks", () => {
  const files = import.meta.glob<{ mask: RunLengths }>("../../../tests/golden/contract/segmented*.json", { eager: true });

  it.each(Object.entries(files))("%s is read and written as it stands", (_path, { mask }) => {
    expect(encode(decode(mask))).toEqual({ height: mask.height, width: mask.width, counts: mask.counts });
    expect(union(mask, empty(mask.height, mask.width))).toEqual(encode(decode(mask)));
  });
});

describe("set operations on runs equal those on pixels", () => {
  const masks = [draw("....", "...."), draw("####", "####"), draw("#.#.", ".#.#"), draw(".##.", "#..#")];
  const pairs = masks.flatMap((a) => masks.map((b) => [a, b] as const));
  const byPixel = (a: RunLengths, b: RunLengths, rule: (x: number, y: number) => number) => {
    const [pixelsA, pixelsB] = [decode(a).pixels, decode(b).pixels];
    return encode({ height: a.height, width: a.width, pixels: pixelsA.map((x, i) => rule(x, pixelsB[i] ?? 0)) });
  };

  it.each(pairs)("%j and %j", (a, b) => {
    expect(union(a, b)).toEqual(byPixel(a, b, (x, y) => x | y));
    expect(subtract(a, b)).toEqual(byPixel(a, b, (x, y) => x & (1 - y)));
  });

  it("lets the hand win over the proposal", () => {
    const shown = compose(draw("##..", "##.."), { drawn: draw("...#", "...."), erased: draw("#...", "....") });
    expect(shown).toEqual(draw(".#.#", "##.."));
  });

  it("refuses masks of different sizes", () => {
    expect(() => union(empty(2, 3), empty(3, 2))).toThrow("different sizes");
  });
});
