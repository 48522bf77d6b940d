/** A judgement's numbers, as a table shows them. */
import type { Schemas } from "../api/client";

export type LabelJudgement = Schemas["LabelJudgement"];

const LEAST_SPAN = 0.02;

/** How far from zero differences and their intervals reach, so that all are drawn to one scale. */
export function spanOf(labels: readonly LabelJudgement[]): number {
  const reached = labels.flatMap(({ difference, low, high }) => [difference, low ?? 0, high ?? 0].map(Math.abs));
  return Math.max(LEAST_SPAN, ...reached);
}

export const labelInWords = (label: string): string => (label === "all" ? "All labels" : label);

export const diceInWords = (dice: number): string => dice.toFixed(3);

/** With a real minus sign, and a plus. */
export function differenceInWords(difference: number): string {
  const rounded = Math.abs(difference).toFixed(3);
  return Number(rounded) === 0 ? rounded : `${difference < 0 ? "−" : "+"}${rounded}`;
}

export function intervalInWords({ low, high }: Pick<LabelJudgement, "low" | "high">): string {
  return low === null || high === null ? "too few for an interval" : `${differenceInWords(low)} to ${differenceInWords(high)}`;
}

/** Mean clicks to an IoU, before and after. */
export function clicksInWords({ opponent_noc, candidate_noc }: LabelJudgement, iou: "85" | "90"): string {
  return [opponent_noc[iou], candidate_noc[iou]].map((clicks) => clicks?.toFixed(1) ?? "–").join(" → ");
}

/** Better where the whole interval is above zero, worse where it is below, else open. */
export function sideOf({ low, high }: Pick<LabelJudgement, "low" | "high">): "better" | "worse" | "open" {
  if (low !== null && low > 0) return "better";
  return high !== null && high < 0 ? "worse" : "open";
}
