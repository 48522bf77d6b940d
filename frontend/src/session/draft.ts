/** A draft's state and how operations change it: the browser's half of the rule the server applies. */
import type { DraftChanges, DraftState, Prompts } from "../contract";
import { area, compose, empty, isSame, subtract, union, type RunLengths } from "./masks";

export type { DraftChanges, DraftState };

export const NO_PROMPTS: Prompts = { points: [], box: null };
export const EMPTY_DRAFT: DraftState = { prompts: NO_PROMPTS, proposal: null, drawn: null, erased: null };

export function apply(draft: DraftState, changes: DraftChanges): DraftState {
  return { ...draft, ...changes };
}

/** The changes that take `apply(draft, changes)` back to `draft`. */
export function inverse(draft: DraftState, changes: DraftChanges): DraftChanges {
  return {
    ...("prompts" in changes && { prompts: draft.prompts }),
    ...("proposal" in changes && { proposal: draft.proposal }),
    ...("drawn" in changes && { drawn: draft.drawn }),
    ...("erased" in changes && { erased: draft.erased }),
  };
}

/** The mask on screen, or null where nothing was proposed or drawn. */
export function visibleMask(draft: DraftState): RunLengths | null {
  const some = draft.proposal?.mask ?? draft.drawn;
  if (some === null) return null;
  if (draft.drawn === null && draft.erased === null) return some;
  const none = empty(some.height, some.width);
  return compose(draft.proposal?.mask ?? none, { drawn: draft.drawn ?? none, erased: draft.erased ?? none });
}

export function visibleArea(draft: DraftState): number {
  const mask = visibleMask(draft);
  return mask === null ? 0 : area(mask);
}

/** Drawing takes pixels out of what was erased, and the reverse: what was done last by hand wins. */
export function stroke(draft: DraftState, { mask, erases }: { mask: RunLengths; erases: boolean }): DraftChanges {
  const none = empty(mask.height, mask.width);
  const [added, removed] = erases ? [draft.erased, draft.drawn] : [draft.drawn, draft.erased];
  const more = union(added ?? none, mask);
  const less = subtract(removed ?? none, mask);
  const rest = area(less) === 0 ? null : less;
  return erases ? { drawn: rest, erased: more } : { drawn: more, erased: rest };
}

export function clearing(): DraftChanges {
  return { prompts: NO_PROMPTS, proposal: null, drawn: null, erased: null };
}

export function isEmpty(draft: DraftState): boolean {
  return (
    draft.proposal === null &&
    draft.drawn === null &&
    draft.erased === null &&
    draft.prompts.box === null &&
    draft.prompts.points.length === 0
  );
}

export function hasSameHandwork(a: HandWork, b: HandWork): boolean {
  return isSame(a.drawn, b.drawn) && isSame(a.erased, b.erased);
}

/** What was drawn and erased by hand. */
export interface HandWork {
  readonly drawn: RunLengths | null;
  readonly erased: RunLengths | null;
}
