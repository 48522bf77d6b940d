/** A line over an axis that says what it is of. */
import { useId } from "react";
import { axisBetween, axisOf, pathThrough, placeOf, tickInWords, type Point } from "./plot";

interface Props {
  /** For those who do not see it. */
  title: string;
  xLabel: string;
  yLabel: string;
  points: readonly Point[];
  /** What y is drawn between where that is known beforehand, as 0 and 1 are of Dice. */
  yBetween?: readonly [number, number];
  xInWords?: (x: number) => string;
  color?: string;
  width?: number;
  height?: number;
}

const LEFT = 48;
const RIGHT = 16;
const TOP = 8;
const BOTTOM = 36;
const FAINT = "var(--mantine-color-dark-4)";
const WORDS = "var(--mantine-color-dimmed)";

export function LinePlot({
  title, xLabel, yLabel, points, yBetween, xInWords = tickInWords, color = "var(--mantine-color-teal-5)", width = 360, height = 200,
}: Props) {
  const titleId = useId();
  const xs = points.map(({ x }) => x);
  const x = axisOf(xs);
  const y = yBetween ? axisBetween(...yBetween) : axisOf(points.flatMap((point) => point.y ?? []));
  const across = [LEFT, width - RIGHT] as const;
  const up = [height - BOTTOM, TOP] as const;
  // Ticks at dates need not be round ones: those of the first and the last point say more.
  const xTicks = xInWords === tickInWords ? x.ticks : [...new Set([xs[0], xs.at(-1)])].filter((at) => at !== undefined);
  return (
    <svg viewBox={`0 0 ${width} ${height}`} width="100%" style={{ maxWidth: width }} role="img" aria-labelledby={titleId} fontSize={11}>
      <title id={titleId}>{title}</title>
      {y.ticks.map((tick) => (
        <g key={tick}>
          <line x1={across[0]} x2={across[1]} y1={placeOf(tick, y, up)} y2={placeOf(tick, y, up)} stroke={FAINT} strokeWidth={0.5} />
          <text x={LEFT - 6} y={placeOf(tick, y, up)} dy="0.35em" textAnchor="end" fill={WORDS}>{tickInWords(tick)}</text>
        </g>
      ))}
      {xTicks.map((tick) => (
        <g key={tick}>
          <line x1={placeOf(tick, x, across)} x2={placeOf(tick, x, across)} y1={up[0]} y2={up[0] + 4} stroke={WORDS} />
          <text x={placeOf(tick, x, across)} y={up[0] + 15} textAnchor="middle" fill={WORDS}>{xInWords(tick)}</text>
        </g>
      ))}
      <line x1={across[0]} x2={across[1]} y1={up[0]} y2={up[0]} stroke={WORDS} />
      <line x1={across[0]} x2={across[0]} y1={up[0]} y2={up[1]} stroke={WORDS} />
      <text x={(across[0] + across[1]) / 2} y={height - 6} textAnchor="middle" fill={WORDS}>{xLabel}</text>
      <text transform={`translate(12 ${(up[0] + up[1]) / 2}) rotate(-90)`} textAnchor="middle" fill={WORDS}>{yLabel}</text>
      <path
        d={pathThrough(points, (px, py) => [placeOf(px, x, across), placeOf(py, y, up)])}
        fill="none" stroke={color} strokeWidth={2} strokeLinejoin="round" strokeLinecap="round"
      />
    </svg>
  );
}
