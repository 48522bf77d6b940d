/** Subjects as lists and sentences. */
import type { Schemas } from "../api/client";
import { counted } from "./words";

export type Subject = Schemas["SubjectOut"];

/** Those whose pseudonym, or one that was merged into it, has the letters somewhere. */
export function matching(subjects: readonly Subject[], letters: string): Subject[] {
  const wanted = letters.trim().toUpperCase();
  return subjects.filter(({ pseudonym, aliases }) => [pseudonym, ...aliases].some((name) => name.includes(wanted)));
}

/** Neither merged nor erased again while it is on its way out. */
export function isLeaving({ erasure }: Subject): boolean {
  return erasure !== null && erasure.state !== "failed";
}

/** What is there of one subject or of several: "2 studies, 3 series, 80 slices, 1 accepted mask". */
export function holdingsOf(subjects: readonly Subject[]): string {
  const sum = (of: (subject: Subject) => number) => subjects.reduce((total, subject) => total + of(subject), 0);
  const studies = sum((subject) => subject.studies);
  return [
    `${studies} ${studies === 1 ? "study" : "studies"}`,
    `${sum((subject) => subject.series)} series`,
    counted(sum((subject) => subject.slices), "slice"),
    counted(sum((subject) => subject.accepted_masks), "accepted mask"),
  ].join(", ");
}
