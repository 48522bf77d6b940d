import { describe, expect, it } from "vitest";
import { bounds, dragged, fullRange, presetsFor } from "./windows";

describe("windows", () => {
  it("offers the usual ones for CT only, and the series' own first", () => {
    const own = { centre: 50, width: 350 };
    expect(presetsFor("CT", own).map(({ name }) => name)).toEqual(["Default", "Soft tissue", "Lung", "Bone", "Brain"]);
    expect(presetsFor("MR", own)).toEqual([{ name: "Default", window: own }]);
    expect(presetsFor("MR", null)).toEqual([]);
  });

  it("has a ramp from its first to its last grey", () => {
    expect(bounds({ centre: 128, width: 256 })).toEqual({ lower: 0, upper: 255 });
    expect(bounds(fullRange(-1024, 3071))).toEqual({ lower: -1024, upper: 3071 });
  });

  it("widens to the right, moves up with down, and never closes", () => {
    const start = { centre: 40, width: 512 };
    expect(dragged(start, { right: 10, down: 0 })).toEqual({ centre: 40, width: 532 });
    expect(dragged(start, { right: 0, down: 10 })).toEqual({ centre: 60, width: 512 });
    expect(dragged(start, { right: -9999, down: 0 }).width).toBe(1);
    expect(dragged({ centre: 0, width: 1 }, { right: 160, down: 0 }).width).toBeGreaterThan(1);
  });
});
