import { describe, expect, it } from "vitest";
import { begin, count, secondsOf, withInput, without } from "./activity";

const HERE = { key: "slice/label", isVisible: true };

describe("active time", () => {
  it("counts from input until it has been idle for twenty seconds", () => {
    const worked = count(withInput(begin(100), 100), { ...HERE, now: 110 });
    expect(secondsOf(worked, HERE.key)).toBe(10);
    const idle = count(count(worked, { ...HERE, now: 119 }), { ...HERE, now: 300 });
    expect(secondsOf(idle, HERE.key)).toBe(20);
  });

  it("does not count before the first input, nor out of sight", () => {
    expect(secondsOf(count(begin(0), { ...HERE, now: 10 }), HERE.key)).toBe(0);
    expect(secondsOf(count(withInput(begin(0), 0), { ...HERE, now: 10, isVisible: false }), HERE.key)).toBe(0);
  });

  it("belongs to what was on screen, and is handed in once", () => {
    const first = count(withInput(begin(0), 0), { ...HERE, now: 5 });
    const second = count(first, { ...HERE, key: "other/label", now: 8 });
    expect([secondsOf(second, HERE.key), secondsOf(second, "other/label")]).toEqual([5, 3]);
    expect(secondsOf(without(second, HERE.key), HERE.key)).toBe(0);
  });
});
