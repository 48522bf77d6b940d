/**
 * One slice and label: its draft, how to take back what was done, and what is being asked of the model.
 *
 * `head` counts the operations on screen, `saved` those the server has acknowledged. Undo and redo
 * are stacks of changes that assign what was there before; both are rebuilt from the server's journal
 * after a reload.
 */
import type { DraftAction, DraftChanges, DraftState, Prompts, Refused } from "../contract";
import { apply, EMPTY_DRAFT, hasSameHandwork, inverse, type HandWork } from "./draft";

export interface Canvas {
  readonly draft: DraftState;
  readonly head: number;
  readonly saved: number;
  readonly accepted: number; // the version last frozen into a revision; 0: none
  readonly undo: readonly DraftChanges[];
  readonly redo: readonly DraftChanges[];
  readonly journal: Journal;
  /** The hand work each proposal was asked with, so that later hand work is told apart. */
  readonly askedWith: Readonly<Record<string, HandWork>>;
  readonly asking: Asking | null;
}

/** Where the operations from before this page are: `at` is the version they led to. */
export type Journal =
  | { readonly kind: "here" }
  | { readonly kind: "on_server"; readonly at: number }
  | { readonly kind: "loading"; readonly at: number; readonly undosOwed: number };

/** Prompts that are on screen and that no proposal has answered yet. */
export interface Asking {
  readonly prompts: Prompts;
  readonly state: "waiting" | "in_flight" | "preparing" | "failed";
  readonly order: number; // the latest goes first
  readonly logitsExpired: boolean;
  readonly requestId: string | null; // as which they were sent last
}

export interface JournalEntry {
  readonly version: number;
  readonly action: DraftAction;
  readonly changes: DraftChanges;
}

export const BLANK: Canvas = {
  draft: EMPTY_DRAFT,
  head: 0,
  saved: 0,
  accepted: 0,
  undo: [],
  redo: [],
  journal: { kind: "here" },
  askedWith: {},
  asking: null,
};

/** A draft as the server has it; its history is fetched when the canvas is opened. */
export function fromServer(server: { draft: DraftState; version: number; accepted: number }): Canvas {
  return {
    ...BLANK,
    draft: server.draft,
    head: server.version,
    saved: server.version,
    accepted: server.accepted,
    journal: server.version === 0 ? { kind: "here" } : { kind: "on_server", at: server.version },
  };
}

export function perform(canvas: Canvas, { action, changes }: { action: DraftAction; changes: DraftChanges }): Canvas {
  const back = inverse(canvas.draft, changes);
  const done = { ...canvas, draft: apply(canvas.draft, changes), head: canvas.head + 1 };
  switch (action) {
    case "undo":
      return { ...done, undo: canvas.undo.slice(0, -1), redo: [...canvas.redo, back] };
    case "redo":
      return { ...done, undo: [...canvas.undo, back], redo: canvas.redo.slice(0, -1) };
    default:
      return { ...done, undo: [...canvas.undo, back], redo: [] };
  }
}

/** Put what was done before this page beneath what was done on it. */
export function withJournal(canvas: Canvas, entries: readonly JournalEntry[]): Canvas {
  if (canvas.journal.kind === "here") return canvas;
  const { at } = canvas.journal;
  const before = entries.filter(({ version }) => version <= at).reduce(replay, BLANK);
  const isUntouched = canvas.head === at;
  return {
    ...canvas,
    undo: [...before.undo, ...canvas.undo],
    redo: isUntouched ? before.redo : canvas.redo,
    askedWith: { ...before.askedWith, ...canvas.askedWith },
    journal: { kind: "here" },
  };
}

function replay(canvas: Canvas, { action, changes }: JournalEntry): Canvas {
  const { drawn, erased } = canvas.draft;
  const proposal = changes.proposal?.proposal_id;
  const askedWith =
    action === "prompt" && proposal !== undefined
      ? { ...canvas.askedWith, [proposal]: { drawn, erased } }
      : canvas.askedWith;
  return { ...perform(canvas, { action, changes }), askedWith };
}

/** Take back operations that the server will not have, newest last in `inverses`. */
export function rollBack(canvas: Canvas, inverses: readonly DraftChanges[]): Canvas {
  const draft = inverses.reduceRight(apply, canvas.draft);
  return { ...canvas, draft, head: canvas.saved, undo: [], redo: [], asking: null };
}

/** The draft as it really stands, after somebody else changed it. */
export function overtaken(canvas: Canvas, { current, version }: Pick<Refused, "current" | "version">): Canvas {
  const at = version ?? 0;
  return {
    ...canvas,
    draft: current ?? EMPTY_DRAFT,
    head: at,
    saved: at,
    undo: [],
    redo: [],
    journal: { kind: "here" },
    asking: null,
  };
}

/** Whether pixels were drawn or erased that the last proposal was not asked with. */
export function isEditedSinceProposal({ draft, askedWith }: Canvas): boolean {
  const before = draft.proposal === null ? undefined : askedWith[draft.proposal.proposal_id];
  return !hasSameHandwork(draft, before ?? { drawn: null, erased: null });
}

/** The prompts on screen: those being asked, else those that were answered. */
export function shownPrompts({ draft, asking }: Canvas): Prompts {
  return asking?.prompts ?? draft.prompts;
}

export function hasUnacceptedChanges({ head, accepted }: Canvas): boolean {
  return head > accepted;
}
