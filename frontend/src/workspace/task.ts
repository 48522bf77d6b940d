/** A task as the server describes it, and what a session takes from it. */
import type { components } from "../api/schema";
import type { TaskFacts } from "../session/session";
import type { Source } from "../viewer/imageStack";
import type { Window } from "../viewer/windows";

export type Task = components["schemas"]["TaskDetail"];
export type Label = components["schemas"]["LabelOut"];
export type Series = components["schemas"]["SeriesDetail"];
export type Review = components["schemas"]["ReviewOut"];

const EDITABLE: readonly Task["state"][] = ["open", "in_progress", "returned"];

export const STATE_NAMES: Readonly<Record<Task["state"], string>> = {
  open: "Not started",
  in_progress: "In progress",
  submitted: "Waiting for review",
  returned: "Returned",
  accepted: "Accepted",
};

export function factsOf(task: Task): TaskFacts {
  return {
    // Without a model there is no session that could save.
    mayEdit: may(task, "annotate") && EDITABLE.includes(task.state) && task.model !== null,
    slices: task.series.slices,
    labelIds: task.labels.map(({ id }) => id),
    drafts: task.drafts,
    revisions: task.revisions,
  };
}

export function may(task: Task, action: string): boolean {
  return (task.actions as readonly string[]).includes(action);
}

/** Why nothing can be changed, as a sentence; null where it can. */
export function whyReadOnly(task: Task): string | null {
  if (task.state === "submitted") return "This task is waiting for review, so its masks cannot be changed.";
  if (task.state === "accepted") return "This task was accepted, so its masks cannot be changed.";
  return may(task, "annotate") ? null : "You may look at this task, but not change its masks.";
}

export function sourceOf({ project_id, series }: Task): Source {
  const { study_uid, series_uid, slices } = series;
  return { root: `/dicomweb/${project_id}/studies/${study_uid}/series/${series_uid}`, slices };
}

/** The series' own window; null for colour. */
export function windowOf({ window_centre, window_width }: Series): Window | null {
  return window_centre === null || window_width === null ? null : { centre: window_centre, width: window_width };
}

/** Size on the patient of so many pixels, in cm²; null where the spacing is unknown. */
export function areaInCm2(pixels: number, { row_spacing_mm, column_spacing_mm }: Series): number | null {
  if (row_spacing_mm === null || column_spacing_mm === null) return null;
  return (pixels * row_spacing_mm * column_spacing_mm) / 100;
}
