/** Which slices to delineate next, in words and in their order. */
import type { Schemas } from "../api/client";

export type Strategy = Schemas["Strategy"];
export type RankedSlice = Schemas["RankedSliceOut"];

/** docs/active-learning.md says why. */
export const DEFAULT_STRATEGY: Strategy = "random";

export const STRATEGIES: readonly { value: Strategy; label: string; sentence: string }[] = [
  { value: "random", label: "By chance", sentence: "Any slices: nothing has been shown to be better, and nothing is fairer to measure by." },
  { value: "mix", label: "A mix", sentence: "What differs most, among the slices of which the model is least sure." },
  { value: "uncertainty", label: "Where the model is unsure", sentence: "Slices on which the model’s proposals are least certain." },
  { value: "diversity", label: "What is unlike the rest", sentence: "Slices that differ most from those that are delineated already." },
  { value: "rare_labels", label: "Rare labels", sentence: "Slices that may show labels of which there are few masks yet." },
];

/** The workspace at that slice. */
export const addressOf = ({ task_id, index }: Pick<RankedSlice, "task_id" | "index">): string => `/tasks/${task_id}?slice=${index}`;

/** What waits for a mask first, each in the order of its rank. */
export function undoneFirst(slices: readonly RankedSlice[]): RankedSlice[] {
  return [...slices].sort((a, b) => Number(a.done) - Number(b.done) || a.position - b.position);
}
