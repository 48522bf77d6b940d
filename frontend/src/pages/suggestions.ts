/** Which slices to delineate next, as the model ranks them: a few requests, and their words. */
import { queryOptions } from "@tanstack/react-query";
import { ApiError, csrfToken, refusal, type Schemas } from "../api/client";

export type Strategy = "random" | "uncertainty" | "diversity" | "rare_labels" | "mix";

export interface Ranking {
  readonly id: string;
  readonly strategy: Strategy;
  readonly state: Schemas["JobState"];
  readonly model: Schemas["ModelRef"];
  readonly scored: number;
  readonly total: number;
  readonly created_at: string;
  readonly finished_at: string | null;
  readonly error_message: string;
}

export interface SuggestedSlice {
  readonly position: number;
  readonly slice_id: string;
  readonly series_id: string;
  readonly task_id: string | null;
  readonly picture: string;
  readonly subject: string;
  readonly index: number;
  readonly score: number;
  readonly reason: string;
  readonly done: boolean;
}

const SLICES = 50;

export const STRATEGIES: readonly { value: Strategy; label: string; sentence: string }[] = [
  { value: "mix", label: "A mix", sentence: "A bit of everything: unsure, unlike the others, and rare." },
  { value: "uncertainty", label: "Where the model is unsure", sentence: "Slices on which the model’s proposals are least certain." },
  { value: "diversity", label: "What is unlike the rest", sentence: "Slices that differ most from those that are delineated already." },
  { value: "rare_labels", label: "Rare labels", sentence: "Slices that may show labels of which there are few masks yet." },
  { value: "random", label: "By chance", sentence: "Any slices: slow to learn from, and the fairest to measure by." },
];

/** Newest first. */
export const rankingsOf = (projectId: string) =>
  queryOptions({
    queryKey: ["project", projectId, "rankings"],
    queryFn: ({ signal }) => ask<Ranking[]>(`/api/projects/${projectId}/rankings`, { signal }),
  });

/** Keyed below the rankings, so that a notice of one refreshes both. */
export const slicesOf = (projectId: string, rankingId: string) =>
  queryOptions({
    queryKey: ["project", projectId, "rankings", rankingId],
    queryFn: ({ signal }) => ask<SuggestedSlice[]>(`/api/rankings/${rankingId}/slices?limit=${SLICES}`, { signal }),
  });

export function suggest(projectId: string, strategy: Strategy): Promise<Ranking> {
  return ask<Ranking>(`/api/projects/${projectId}/rankings`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": csrfToken() ?? "" },
    body: JSON.stringify({ strategy }),
  });
}

/** The workspace at that slice. */
export const addressOf = ({ task_id, index }: Pick<SuggestedSlice, "task_id" | "index">): string | null =>
  task_id === null ? null : `/tasks/${task_id}?slice=${index}`;

/** What waits for a mask first, each in the order of its rank. */
export function undoneFirst(slices: readonly SuggestedSlice[]): SuggestedSlice[] {
  return [...slices].sort((a, b) => Number(a.done) - Number(b.done) || a.position - b.position);
}

async function ask<Answer>(address: string, request: RequestInit): Promise<Answer> {
  const response = await fetch(address, request).catch((error: unknown) => {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached; try again in a moment.");
  });
  const body: unknown = await response.json().catch(() => undefined);
  if (!response.ok || body === undefined) throw refusal(response.status, body);
  return body as Answer;
}
