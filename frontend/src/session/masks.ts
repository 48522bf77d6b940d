/**
 * Binary masks as run lengths, the form in which masks travel and rest.
 *
 * A mask is read row by row, from the top left, as runs that alternate background, foreground, …
 * The first run is background and may be 0; no other run is. Set operations walk the runs, so that
 * a mask becomes a bitmap only where it is drawn.
 */
import type { RunLengths } from "../contract";

export type { RunLengths };

/** A mask as one byte per pixel, 0 or 1, row-major. */
export interface Bitmap {
  readonly height: number;
  readonly width: number;
  readonly pixels: Uint8Array;
}

export function encode({ height, width, pixels }: Bitmap): RunLengths {
  const counts: number[] = [];
  let value = 0;
  let start = 0;
  for (let i = 0; i < pixels.length; i++) {
    if (pixels[i] !== value) {
      counts.push(i - start);
      start = i;
      value = 1 - value;
    }
  }
  counts.push(pixels.length - start);
  return { height, width, counts };
}

export function decode({ height, width, counts }: RunLengths): Bitmap {
  const pixels = new Uint8Array(height * width);
  let position = 0;
  counts.forEach((count, run) => {
    if (run % 2 === 1) pixels.fill(1, position, position + count);
    position += count;
  });
  return { height, width, pixels };
}

export function area({ counts }: RunLengths): number {
  let sum = 0;
  for (let run = 1; run < counts.length; run += 2) sum += counts[run] ?? 0;
  return sum;
}

export function empty(height: number, width: number): RunLengths {
  return { height, width, counts: [height * width] };
}

export function union(a: RunLengths, b: RunLengths): RunLengths {
  return combine(a, b, (inA, inB) => inA || inB);
}

export function subtract(a: RunLengths, b: RunLengths): RunLengths {
  return combine(a, b, (inA, inB) => inA && !inB);
}

/** What the annotator sees: pixels drawn or erased by hand win over the model's proposal. */
export function compose(proposal: RunLengths, hand: { drawn: RunLengths; erased: RunLengths }): RunLengths {
  return subtract(union(proposal, hand.drawn), hand.erased);
}

export function isSame(a: RunLengths | null, b: RunLengths | null): boolean {
  if (a === b) return true;
  if (a === null || b === null || a.height !== b.height || a.width !== b.width) return false;
  return a.counts.length === b.counts.length && a.counts.every((count, run) => count === b.counts[run]);
}

type Rule = (inA: boolean, inB: boolean) => boolean;

function combine(a: RunLengths, b: RunLengths, rule: Rule): RunLengths {
  if (a.height !== b.height || a.width !== b.width) throw new Error("Masks of different sizes do not combine.");
  const counts: number[] = [];
  let value = false; // of the run being collected
  let collected = 0;
  let [runA, runB] = [0, 0];
  let [leftA, leftB] = [a.counts[0] ?? 0, b.counts[0] ?? 0];
  for (let position = 0; position < a.height * a.width; ) {
    while (leftA === 0) leftA = a.counts[++runA] ?? Infinity;
    while (leftB === 0) leftB = b.counts[++runB] ?? Infinity;
    const step = Math.min(leftA, leftB);
    const next = rule(runA % 2 === 1, runB % 2 === 1);
    if (next !== value) {
      counts.push(collected);
      collected = 0;
      value = next;
    }
    collected += step;
    position += step;
    leftA -= step;
    leftB -= step;
  }
  counts.push(collected);
  return { height: a.height, width: a.width, counts };
}
