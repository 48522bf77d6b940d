import { describe, expect, it } from "vitest";
import { apply, clearing, EMPTY_DRAFT, inverse, stroke, visibleMask, type DraftChanges, type DraftState } from "./draft";
import { area, empty, type RunLengths } from "./masks";

const runs = (...counts: number[]): RunLengths => ({ height: 1, width: 8, counts });
const proposal = (mask: RunLengths): NonNullable<DraftState["proposal"]> => ({
  proposal_id: "0".repeat(32),
  mask,
  predicted_iou: 0.5,
  model_digest: "a".repeat(64),
  prompts: { points: [], box: null },
  seal: "sealed",
});

describe("a draft", () => {
  it("shows nothing before anything was done", () => {
    expect(visibleMask(EMPTY_DRAFT)).toBeNull();
  });

  it("shows the proposal with what was drawn, without what was erased", () => {
    const draft = { ...EMPTY_DRAFT, proposal: proposal(runs(0, 4, 4)), drawn: runs(6, 2), erased: runs(0, 1, 7) };
    expect(visibleMask(draft)).toEqual(runs(1, 3, 2, 2));
  });

  it.each<[string, DraftChanges]>([
    ["drawing", stroke(EMPTY_DRAFT, { mask: runs(2, 2, 4), erases: false })],
    ["erasing", stroke(EMPTY_DRAFT, { mask: runs(2, 2, 4), erases: true })],
    ["prompting", { prompts: { points: [{ x: 1, y: 0, positive: true }], box: null }, proposal: proposal(runs(8)) }],
    ["clearing", clearing()],
  ])("is back where it was after %s and its inverse", (_what, changes) => {
    const before: DraftState = { ...EMPTY_DRAFT, drawn: runs(1, 1, 6), erased: runs(4, 1, 3) };
    expect(apply(apply(before, changes), inverse(before, changes))).toEqual(before);
  });

  it("lets what was done last by hand win", () => {
    const drawn = apply(EMPTY_DRAFT, stroke(EMPTY_DRAFT, { mask: runs(0, 4, 4), erases: false }));
    const erased = apply(drawn, stroke(drawn, { mask: runs(2, 4, 2), erases: true }));
    expect(visibleMask(erased)).toEqual(runs(0, 2, 6));
    const redrawn = apply(erased, stroke(erased, { mask: runs(3, 1, 4), erases: false }));
    expect(visibleMask(redrawn)).toEqual(runs(0, 2, 1, 1, 4));
  });

  it("keeps no empty hand work", () => {
    const drawn = apply(EMPTY_DRAFT, stroke(EMPTY_DRAFT, { mask: runs(0, 4, 4), erases: false }));
    const { drawn: left } = apply(drawn, stroke(drawn, { mask: runs(0, 8), erases: true }));
    expect(left).toBeNull();
  });

  it("keeps hand work under a later proposal", () => {
    const erased = apply(EMPTY_DRAFT, stroke(EMPTY_DRAFT, { mask: runs(0, 2, 6), erases: true }));
    const proposed = apply(erased, { proposal: proposal(runs(0, 8)) });
    expect(area(visibleMask(proposed) ?? empty(1, 8))).toBe(6);
  });
});
