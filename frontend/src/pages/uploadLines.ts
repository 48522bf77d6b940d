/** A report's lines, counted and chosen from. */
import type { Schemas } from "../api/client";

type Line = Schemas["FileFate"];

// What somebody has to look at comes first.
const ORDER = ["refused", "duplicate", "skipped", "stored"];

export function fatesOf(report: readonly Line[]): { fate: string; files: number }[] {
  return countedBy(report, ({ fate }) => fate)
    .map(([fate, files]) => ({ fate, files }))
    .sort((one, other) => ORDER.indexOf(one.fate) - ORDER.indexOf(other.fate));
}

/** Why the files of one fate have it, the most frequent first. */
export function reasonsOf(report: readonly Line[], fate: string): { code: string; files: number }[] {
  return countedBy(report.filter((line) => line.fate === fate && line.code !== ""), ({ code }) => code)
    .map(([code, files]) => ({ code, files }))
    .sort((one, other) => other.files - one.files);
}

export function chosenLines(report: readonly Line[], { fate, code }: { fate: string; code?: string }): Line[] {
  return report.filter((line) => line.fate === fate && (code === undefined || line.code === code));
}

function countedBy(report: readonly Line[], keyOf: (line: Line) => string): [string, number][] {
  const counts = new Map<string, number>();
  for (const line of report) counts.set(keyOf(line), (counts.get(keyOf(line)) ?? 0) + 1);
  return [...counts];
}
