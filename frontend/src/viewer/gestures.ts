/** What a pressed pointer does, until it is released. */
import type { Tool } from "../session/session";
import type { ScreenPoint, SlicePoint } from "./frames";
import { dragged, type Window } from "./windows";

export type Gesture =
  | { readonly kind: "stroke"; readonly path: readonly SlicePoint[]; readonly erases: boolean }
  | { readonly kind: "box"; readonly from: SlicePoint; readonly to: SlicePoint }
  | { readonly kind: "window"; readonly start: ScreenPoint; readonly before: Window }
  | { readonly kind: "pan"; readonly at: ScreenPoint }
  | { readonly kind: "zoom"; readonly at: ScreenPoint; readonly anchor: ScreenPoint };

export type Press = { readonly kind: "point"; readonly positive: boolean } | Gesture | null;

export interface Pointer {
  readonly button: number; // 0 left, 1 middle, 2 right
  readonly screen: ScreenPoint;
  readonly slice: SlicePoint | null;
  readonly isShifted: boolean;
  readonly isPanning: boolean; // the space bar is held
}

export interface Hand {
  readonly tool: Tool;
  readonly mayEdit: boolean;
  readonly window: Window | null;
}

/** Left is the tool in hand, middle (or space) pans, right zooms; shift turns a point's sign. */
export function press({ button, screen, slice, isShifted, isPanning }: Pointer, hand: Hand): Press {
  if (button === 1 || (button === 0 && (isPanning || hand.tool === "pan"))) return { kind: "pan", at: screen };
  if (button === 2) return { kind: "zoom", at: screen, anchor: screen };
  if (button !== 0) return null;
  if (hand.tool === "window") {
    return hand.window === null ? null : { kind: "window", start: screen, before: hand.window };
  }
  if (!hand.mayEdit || slice === null) return null;
  switch (hand.tool) {
    case "positive":
    case "negative":
      return { kind: "point", positive: (hand.tool === "positive") !== isShifted };
    case "box":
      return { kind: "box", from: slice, to: slice };
    case "brush":
    case "eraser":
      return { kind: "stroke", path: [slice], erases: hand.tool === "eraser" };
    case "pan":
      return null; // taken above
  }
}

const ZOOM_PER_PIXEL = 1 / 150;

/** A drag up comes closer. */
export function zoomFactor(from: ScreenPoint, to: ScreenPoint): number {
  return Math.exp((from.top - to.top) * ZOOM_PER_PIXEL);
}

export function windowAfter(
  { start, before }: Extract<Gesture, { kind: "window" }>,
  { left, top }: ScreenPoint,
): Window {
  return dragged(before, { right: left - start.left, down: top - start.top });
}
