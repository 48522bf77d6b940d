/** Where values stand on a plot: round ticks, and a domain that begins and ends at one. */

export interface Axis {
  readonly from: number;
  readonly to: number;
  readonly ticks: readonly number[];
}

export interface Point {
  readonly x: number;
  readonly y: number | null;
}

const TICKS_WANTED = 4;

/** An axis on which all of `values` stand; 0 to 1 where there are none. */
export function axisOf(values: readonly number[]): Axis {
  const known = values.filter(Number.isFinite);
  if (known.length === 0) return axisBetween(0, 1);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  // A single value gets room around it.
  return low === high ? axisBetween(low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2) : axisBetween(low, high);
}

/** From the round number below `low` to the one above `high`. */
export function axisBetween(low: number, high: number): Axis {
  const step = roundStep((high - low) / TICKS_WANTED);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => exact((first + i) * step));
  return { from: exact(first * step), to: exact(last * step), ticks };
}

/** A value's place between two screen points; y axes go from the bottom up. */
export function placeOf(value: number, { from, to }: Axis, [start, end]: readonly [number, number]): number {
  return start + ((value - from) / (to - from)) * (end - start);
}

/** SVG path through points, with a gap where there is no value; a lone one is a dot. */
export function pathThrough(points: readonly Point[], place: (x: number, y: number) => readonly [number, number]): string {
  let isDrawing = false;
  return points
    .map(({ x, y }, i) => {
      if (y === null) {
        isDrawing = false;
        return "";
      }
      const [px, py] = place(x, y).map((at) => at.toFixed(1));
      const isLone = !isDrawing && (points[i + 1]?.y ?? null) === null;
      const part = `${isDrawing ? "L" : "M"}${px} ${py}${isLone ? "h0" : ""}`;
      isDrawing = true;
      return part;
    })
    .join("");
}

/** As short as tells neighbouring ticks apart. */
export function tickInWords(value: number): string {
  return Math.abs(value) >= 10_000 ? `${exact(value / 1000)}k` : String(exact(value));
}

function roundStep(atLeast: number): number {
  const power = 10 ** Math.floor(Math.log10(atLeast));
  const share = atLeast / power;
  return power * ([1, 2, 5].find((round) => share <= round + 1e-9) ?? 10);
}

/** 0.30000000000000004 is 0.3. */
function exact(value: number): number {
  return Number(value.toPrecision(10));
}
