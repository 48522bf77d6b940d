/**
 * The two frames of the viewer and the map between them.
 *
 * A SlicePoint is (x, y) = (column, row) where pixel (c, r) covers [c, c+1) × [r, r+1). A ScreenPoint
 * is in CSS pixels from the viewer's top left. Prompts travel as whole pixels: a point names the
 * pixel it lies on, a box its first column and row and its last ones + 1.
 */
import type { Box, Point } from "../contract";
import type { SlicePoint } from "../session/strokes";

export type { SlicePoint };

export interface ScreenPoint {
  readonly left: number;
  readonly top: number;
}

/** Slice → screen: left = a·x + c·y + e, top = b·x + d·y + f, as a canvas has it. */
export interface Transform {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  readonly e: number;
  readonly f: number;
}

export interface SliceSize {
  readonly height: number;
  readonly width: number;
}

/** The transform that takes three slice points to where they are on screen. */
export function transformThrough(corner: ScreenPoint, right: ScreenPoint, below: ScreenPoint): Transform {
  return {
    a: right.left - corner.left,
    b: right.top - corner.top,
    c: below.left - corner.left,
    d: below.top - corner.top,
    e: corner.left,
    f: corner.top,
  };
}

export function toScreen({ a, b, c, d, e, f }: Transform, { x, y }: SlicePoint): ScreenPoint {
  return { left: a * x + c * y + e, top: b * x + d * y + f };
}

export function toSlice({ a, b, c, d, e, f }: Transform, { left, top }: ScreenPoint): SlicePoint {
  const determinant = a * d - b * c;
  const [u, v] = [left - e, top - f];
  return { x: (d * u - c * v) / determinant, y: (a * v - b * u) / determinant };
}

/** Screen pixels per slice pixel, along columns. */
export function scaleOf({ a, b }: Transform): number {
  return Math.hypot(a, b);
}

export function isInside({ x, y }: SlicePoint, { height, width }: SliceSize): boolean {
  return x >= 0 && y >= 0 && x < width && y < height;
}

/** The point that names the pixel under `at`. */
export function pointAt(at: SlicePoint, { positive }: { positive: boolean }): Point {
  return { x: Math.floor(at.x), y: Math.floor(at.y), positive };
}

/** The box of the pixels that a drag touched, within the slice; null when it touched none. */
export function boxBetween(from: SlicePoint, to: SlicePoint, { height, width }: SliceSize): Box | null {
  const x0 = Math.max(0, Math.floor(Math.min(from.x, to.x)));
  const y0 = Math.max(0, Math.floor(Math.min(from.y, to.y)));
  const x1 = Math.min(width, Math.floor(Math.max(from.x, to.x)) + 1);
  const y1 = Math.min(height, Math.floor(Math.max(from.y, to.y)) + 1);
  return x1 > x0 && y1 > y0 ? { x0, y0, x1, y1 } : null;
}
