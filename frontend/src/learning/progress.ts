/** How far runs have come, in words and shares. */
import type { Schemas } from "../api/client";
import { counted } from "../pages/words";
import type { Point } from "./plot";

export type Run = Schemas["RunOut"];

/** As the client reads it: it knows triples as lists. */
export type RunDetails = Omit<Schemas["RunDetails"], "curve" | "log"> & {
  curve: readonly (readonly (number | null)[])[];
  log: readonly (readonly string[])[];
};

/** A run's curve of losses, or of Dice, over steps. */
export function curveOf({ curve }: Pick<RunDetails, "curve">, of: "loss" | "dice"): Point[] {
  return curve.map(([step, loss, dice]) => ({ x: step ?? 0, y: (of === "loss" ? loss : dice) ?? null }));
}

export const isUnderWay = ({ state }: { state: Schemas["JobState"] }): boolean => state !== "done" && state !== "failed";

/** In percent; a run's judging begins at nothing again. */
export function percentOf(run: Run): number {
  const [done, of] = run.stage === "training" ? [run.step, run.of_steps] : [run.evaluated, run.to_evaluate];
  return percent(done, of);
}

export function percent(done: number, of: number): number {
  return of > 0 ? Math.min(100, (100 * done) / of) : 0;
}

/** What a run is at. */
export function stageInWords(run: Run): string {
  switch (run.state) {
    case "done":
      return "Done";
    case "failed":
      return run.error_code === "cancelled" ? "Stopped" : "Failed";
    case "arriving":
    case "pending":
      return run.stop_wanted ? "Is being stopped" : "Waits for its turn";
    case "running":
      if (run.stop_wanted) return "Is being stopped";
      return run.stage === "training"
        ? `Trains: epoch ${run.epoch}, step ${run.step} of ${run.of_steps || "…"}`
        : `Is judged: ${run.evaluated} of ${run.to_evaluate || "…"} held-out masks`;
  }
}

/** When a run ends, or how long it has taken. */
export function timeInWords(run: Run): string {
  if (isUnderWay(run)) return run.eta_s === null || run.stop_wanted ? "" : `about ${durationInWords(run.eta_s)} left`;
  return run.seconds > 0 ? `took ${durationInWords(run.seconds)}` : "";
}

export function durationInWords(seconds: number): string {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return `${Math.floor(minutes / 60)} h${rest > 0 ? ` ${rest} min` : ""}`;
}

/** The days of a model's time. */
export function periodInWords({ since, until }: { since: string; until: string | null }): string {
  const day = (at: string) => new Date(at).toLocaleDateString();
  return until === null ? `from ${day(since)} on` : `${day(since)} to ${day(until)}`;
}

export const partInWords = ({ subjects, masks }: Schemas["PartCounts"]): string =>
  `${counted(masks, "mask")} of ${counted(subjects, "subject")}`;
