import { describe, expect, it } from "vitest";
import { empty, type RunLengths } from "../session/masks";
import { outline, type Segment } from "./outline";

const sorted = (segments: Segment[]) => segments.map(({ x0, y0, x1, y1 }) => `${x0},${y0}-${x1},${y1}`).sort();

describe("an outline", () => {
  it("of nothing is nothing", () => {
    expect(outline(empty(4, 5))).toEqual([]);
  });

  it.each<[string, RunLengths, string[]]>([
    ["a whole slice", { height: 2, width: 3, counts: [0, 6] }, ["0,0-0,2", "0,0-3,0", "0,2-3,2", "3,0-3,2"]],
    ["one pixel", { height: 3, width: 3, counts: [4, 1, 4] }, ["1,1-1,2", "1,1-2,1", "1,2-2,2", "2,1-2,2"]],
    [
      "a step",
      { height: 2, width: 2, counts: [0, 1, 1, 2] },
      ["0,0-0,2", "0,0-1,0", "0,2-2,2", "1,0-1,1", "1,1-2,1", "2,1-2,2"],
    ],
    [
      "two rows apart",
      { height: 3, width: 1, counts: [0, 1, 1, 1] },
      ["0,0-0,1", "0,0-1,0", "0,1-1,1", "0,2-0,3", "0,2-1,2", "0,3-1,3", "1,0-1,1", "1,2-1,3"],
    ],
  ])("of %s is its edge, in pieces as long as they can be", (_what, mask, expected) => {
    expect(sorted(outline(mask))).toEqual(expected);
  });
});
