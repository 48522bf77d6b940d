/** Outlines of masks as SVG paths, in slice pixels. */
import type { RunLengths } from "../session/masks";
import { outline } from "../viewer/outline";

export function pathOf(mask: RunLengths): string {
  return outline(mask).map(({ x0, y0, x1, y1 }) => `M${x0} ${y0}L${x1} ${y1}`).join("");
}
