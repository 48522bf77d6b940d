/** The edge of a mask along pixel borders, in slice points: crisp at every zoom. */
import { decode, type RunLengths } from "../session/masks";

export interface Segment {
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
}

/** Straight pieces of the edge, each as long as it can be; horizontal and vertical ones. */
export function outline(mask: RunLengths): Segment[] {
  const { height, width, pixels } = decode(mask);
  const segments: Segment[] = [];
  const openSince = new Int32Array(width + 1).fill(-1); // the row where the vertical piece at x began
  for (let y = 0; y <= height; y++) {
    let horizontalSince = -1;
    for (let x = 0; x <= width; x++) {
      const here = y < height && x < width ? pixels[y * width + x] : 0;
      const above = y > 0 && x < width ? pixels[(y - 1) * width + x] : 0;
      const before = y < height && x > 0 ? pixels[y * width + x - 1] : 0;
      if (here !== above) {
        if (horizontalSince < 0) horizontalSince = x;
      } else if (horizontalSince >= 0) {
        segments.push({ x0: horizontalSince, y0: y, x1: x, y1: y });
        horizontalSince = -1;
      }
      const since = openSince[x] ?? -1;
      if (here !== before) {
        if (since < 0) openSince[x] = y;
      } else if (since >= 0) {
        segments.push({ x0: x, y0: since, x1: x, y1: y });
        openSince[x] = -1;
      }
    }
  }
  return segments;
}
