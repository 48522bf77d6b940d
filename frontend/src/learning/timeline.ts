/** A project's models in the order they were made, and what can be done with each. */
import type { Schemas } from "../api/client";
import { shortDigest } from "../pages/modelWords";

export type ProjectModel = Schemas["ProjectModel"];

/** The newest first. */
export function timelineOf(models: readonly ProjectModel[]): ProjectModel[] {
  return [...models].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
}

/** What a model was made from; null of one that was not fine-tuned here. */
export function lineageOf({ parent }: Pick<ProjectModel, "parent">, models: readonly ProjectModel[]): string | null {
  if (parent === "") return null;
  return `from ${models.find(({ digest }) => digest === parent)?.name ?? shortDigest(parent)}`;
}

/** A run's better model is promoted; any other is a lead's own choice. */
export function changeTo({ run_id, verdict }: Pick<ProjectModel, "run_id" | "verdict">): Schemas["Change"] {
  return run_id !== null && verdict === "better" ? "promote" : "pin";
}

/** Marks of a model, the one that matters most first. */
export function marksOf(model: ProjectModel): { text: string; color: string }[] {
  return [
    ...(model.is_active ? [{ text: "answers now", color: "teal" }] : []),
    ...(model.is_roll_back ? [{ text: "roll-back target", color: "blue" }] : []),
    ...(model.is_default ? [{ text: "default", color: "gray" }] : []),
    ...(model.trained ? [] : [{ text: "random weights", color: "orange" }]),
    ...(model.trained_on_erased ? [{ text: "has learnt from somebody erased", color: "red" }] : []),
  ];
}

/** When it answered last, or does. */
export function lastTimeOf({ answered }: Pick<ProjectModel, "answered">): ProjectModel["answered"][number] | undefined {
  return [...answered].sort((a, b) => Date.parse(b.since) - Date.parse(a.since))[0];
}

/** Before and after for a comparison: what answers, and the newest of the others. */
export function pairToCompare(models: readonly ProjectModel[]): { first: string | null; second: string | null } {
  const newest = timelineOf(models);
  const first = newest.find(({ is_active }) => is_active) ?? newest.at(-1);
  return { first: first?.digest ?? null, second: newest.find((model) => model !== first)?.digest ?? null };
}

/** The change that is being prepared, if one is. */
export function underPreparation(promotions: readonly Schemas["PromotionOut"][]): Schemas["PromotionOut"] | undefined {
  return promotions.find(({ state }) => state === "preparing");
}
