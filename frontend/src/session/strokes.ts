/**
 * A brush stroke as a mask: the pixels whose centres a disc passes over as it is swept along a path.
 *
 * Positions are slice points: (x, y) = (column, row), where pixel (c, r) covers [c, c+1) × [r, r+1)
 * and has its centre at (c + ½, r + ½).
 */
import { encode, type RunLengths } from "./masks";

export interface SlicePoint {
  readonly x: number;
  readonly y: number;
}

export function sweepDisc(
  path: readonly SlicePoint[],
  { radius, height, width }: { radius: number; height: number; width: number },
): RunLengths {
  const pixels = new Uint8Array(height * width);
  path.forEach((to, i) => {
    const from = path[i - 1] ?? to;
    fillCapsule(pixels, { from, to, radius, height, width });
  });
  return encode({ height, width, pixels });
}

function fillCapsule(
  pixels: Uint8Array,
  capsule: { from: SlicePoint; to: SlicePoint; radius: number; height: number; width: number },
): void {
  const { from, to, radius, height, width } = capsule;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const squaredLength = dx * dx + dy * dy;
  const firstRow = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius));
  const lastRow = Math.min(height - 1, Math.ceil(Math.max(from.y, to.y) + radius));
  const firstColumn = Math.max(0, Math.floor(Math.min(from.x, to.x) - radius));
  const lastColumn = Math.min(width - 1, Math.ceil(Math.max(from.x, to.x) + radius));
  for (let row = firstRow; row <= lastRow; row++) {
    for (let column = firstColumn; column <= lastColumn; column++) {
      const [x, y] = [column + 0.5 - from.x, row + 0.5 - from.y];
      const along = squaredLength === 0 ? 0 : Math.min(1, Math.max(0, (x * dx + y * dy) / squaredLength));
      const [awayX, awayY] = [x - along * dx, y - along * dy];
      if (awayX * awayX + awayY * awayY <= radius * radius) pixels[row * width + column] = 1;
    }
  }
}
