import { describe, expect, it } from "vitest";
import type { Tool } from "../session/session";
import { press, windowAfter, zoomFactor, type Hand, type Pointer } from "./gestures";

const AT = { left: 40, top: 30 };
const LEFT: Pointer = { button: 0, screen: AT, slice: { x: 4, y: 3 }, isShifted: false, isPanning: false };
const hand = (tool: Tool): Hand => ({ tool, mayEdit: true, window: { centre: 40, width: 400 } });
const TOOLS: Tool[] = ["positive", "negative", "box", "brush", "eraser", "window", "pan"];

describe("a press", () => {
  it.each<[Tool, unknown]>([
    ["positive", { kind: "point", positive: true }],
    ["negative", { kind: "point", positive: false }],
    ["box", { kind: "box", from: { x: 4, y: 3 }, to: { x: 4, y: 3 } }],
    ["brush", { kind: "stroke", path: [{ x: 4, y: 3 }], erases: false }],
    ["eraser", { kind: "stroke", path: [{ x: 4, y: 3 }], erases: true }],
    ["window", { kind: "window", start: AT, before: { centre: 40, width: 400 } }],
    ["pan", { kind: "pan", at: AT }],
  ])("of the left button uses the %s tool", (tool, expected) => {
    expect(press(LEFT, hand(tool))).toEqual(expected);
  });

  it.each(TOOLS)("with %s in hand: middle and space pan, right zooms", (tool) => {
    expect(press({ ...LEFT, button: 1 }, hand(tool))).toEqual({ kind: "pan", at: AT });
    expect(press({ ...LEFT, isPanning: true }, hand(tool))).toEqual({ kind: "pan", at: AT });
    expect(press({ ...LEFT, button: 2 }, hand(tool))).toEqual({ kind: "zoom", at: AT, anchor: AT });
    expect(press({ ...LEFT, button: 3 }, hand(tool))).toBeNull();
  });

  it("with shift turns a point's sign", () => {
    expect(press({ ...LEFT, isShifted: true }, hand("positive"))).toEqual({ kind: "point", positive: false });
    expect(press({ ...LEFT, isShifted: true }, hand("negative"))).toEqual({ kind: "point", positive: true });
  });

  it.each(TOOLS)("with %s in hand changes no mask where one may not, or beside the slice", (tool) => {
    const looking = ["window", "pan"].includes(tool);
    expect(press(LEFT, { ...hand(tool), mayEdit: false }) !== null).toBe(looking);
    expect(press({ ...LEFT, slice: null }, hand(tool)) !== null).toBe(looking);
  });

  it("leaves a colour image's window alone", () => {
    expect(press(LEFT, { ...hand("window"), window: null })).toBeNull();
  });
});

describe("a drag", () => {
  it("up comes closer and back down is where it was", () => {
    const up = zoomFactor({ left: 0, top: 100 }, { left: 0, top: 50 });
    expect(up).toBeGreaterThan(1);
    expect(up * zoomFactor({ left: 0, top: 50 }, { left: 0, top: 100 })).toBeCloseTo(1, 9);
  });

  it("sets the window from where it began", () => {
    const gesture = { kind: "window", start: AT, before: { centre: 40, width: 256 } } as const;
    expect(windowAfter(gesture, { left: 50, top: 25 })).toEqual({ centre: 35, width: 266 });
  });
});
