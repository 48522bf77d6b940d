/** Boxes to black out, in slice pixels: x0 y0 the first column and row, x1 y1 the last + 1. */
import type { Schemas } from "../api/client";
import { slicesInWords } from "./words";

export type BlackBox = Schemas["BlackBox"];
export type Area = Pick<BlackBox, "x0" | "y0" | "x1" | "y1">;

export interface Size {
  readonly columns: number;
  readonly rows: number;
}

export interface SlicePoint {
  readonly x: number;
  readonly y: number;
}

interface Shown {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** Where on the slice a pointer is, given where on screen the slice is. */
export function toSlicePoint(pointer: { clientX: number; clientY: number }, shown: Shown, size: Size): SlicePoint {
  return {
    x: ((pointer.clientX - shown.left) / shown.width) * size.columns,
    y: ((pointer.clientY - shown.top) / shown.height) * size.rows,
  };
}

/** Every pixel that lies between two corners, also in part; null where none does. */
export function areaBetween(one: SlicePoint, other: SlicePoint, { columns, rows }: Size): Area | null {
  const within = (value: number, most: number) => Math.min(Math.max(value, 0), most);
  const area = {
    x0: within(Math.floor(Math.min(one.x, other.x)), columns),
    y0: within(Math.floor(Math.min(one.y, other.y)), rows),
    x1: within(Math.ceil(Math.max(one.x, other.x)), columns),
    y1: within(Math.ceil(Math.max(one.y, other.y)), rows),
  };
  return area.x0 < area.x1 && area.y0 < area.y1 ? area : null;
}

export function isOn(box: BlackBox, index: number): boolean {
  return box.first <= index && index <= box.last;
}

/** Its size, and on which slices it lies; the first slice is 1 for people. */
export function boxInWords(box: BlackBox, slices: number): string {
  const size = `${box.x1 - box.x0} × ${box.y1 - box.y0}`;
  if (slices === 1) return size;
  const where =
    box.first === 0 && box.last === slices - 1 ? `all ${slicesInWords(slices)}`
    : box.first === box.last ? `slice ${box.first + 1}`
    : `slices ${box.first + 1} to ${box.last + 1}`;
  return `${size} on ${where}`;
}

/** The address of a slice's picture, or, without an index, of the brightest of all slices. */
export function previewUrl(seriesId: string, { index, side }: { index?: number; side: number }): string {
  const what = index === undefined ? "brightest=true" : `index=${index}`;
  return `/api/series/${seriesId}/preview?${what}&side=${side}`;
}
