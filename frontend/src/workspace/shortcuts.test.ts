import { describe, expect, it } from "vitest";
import { commandFor, nextRadius, SHORTCUTS, type Command, type KeyPress } from "./shortcuts";

const press = (key: string, held: Partial<KeyPress> = {}): KeyPress => ({
  key,
  ctrlKey: false,
  metaKey: false,
  shiftKey: false,
  altKey: false,
  ...held,
});

describe("keys", () => {
  it.each<[KeyPress, Command | null]>([
    [press("p"), { kind: "tool", tool: "positive" }],
    [press("P"), { kind: "tool", tool: "positive" }],
    [press("z", { ctrlKey: true }), { kind: "undo" }],
    [press("z", { metaKey: true }), { kind: "undo" }],
    [press("Z", { ctrlKey: true, shiftKey: true }), { kind: "redo" }],
    [press("z"), null],
    [press("Enter"), { kind: "accept" }],
    [press("Escape"), { kind: "clear" }],
    [press("ArrowDown"), { kind: "slices", by: 1 }],
    [press("?", { shiftKey: true }), { kind: "help" }],
    [press("3"), { kind: "label", index: 2 }],
    [press("0"), null],
    [press("p", { ctrlKey: true }), null],
  ])("%j", (key, command) => {
    expect(commandFor(key)).toEqual(command);
  });

  it("mean one thing each", () => {
    const chords = SHORTCUTS.flatMap(({ shortcuts }) => shortcuts.flatMap((shortcut) => shortcut.chords));
    expect(new Set(chords).size).toBe(chords.length);
  });
});

describe("the brush", () => {
  it("always changes by at least a pixel, and stays within its limits", () => {
    expect(nextRadius(1, 1.25)).toBe(2);
    expect(nextRadius(2, 1 / 1.25)).toBe(1);
    expect(nextRadius(1, 1 / 1.25)).toBe(1);
    expect(nextRadius(100, 1.25)).toBe(100);
    expect(nextRadius(40, 1.25)).toBe(50);
  });
});
