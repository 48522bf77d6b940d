/** What is to be seen of a session: the masks above a slice, and the marks of slices and labels. */
import { hasUnacceptedChanges, shownPrompts } from "../session/canvas";
import { visibleMask, type DraftState } from "../session/draft";
import { area, type RunLengths } from "../session/masks";
import { canvasAt, keyOf, type Place, type Session } from "../session/session";
import type { Layer, Scene } from "../viewer/overlay";
import type { Label } from "./task";

/** Where a label stands on a slice. */
export type Mark = "none" | "changed" | "accepted";

const NOTHING: Scene["prompts"] = { points: [], box: null };

/** The masks and prompts on the slice on screen; the label in hand lies on top. */
export function sceneOf(session: Session, labels: readonly Label[], { areMasksShown }: { areMasksShown: boolean }): Scene {
  const slice_id = session.sliceIds[session.sliceIndex];
  if (slice_id === undefined || !areMasksShown) return { layers: [], prompts: NOTHING, isAsking: false };
  const others = labels.filter(({ id }) => id !== session.labelId);
  const current = labels.filter(({ id }) => id === session.labelId);
  const layers = [...others, ...current].flatMap(({ id, color }): Layer[] => {
    const isCurrent = id === session.labelId;
    const mask = maskAt(session, { slice_id, label_id: id }, { isCurrent });
    return mask === null || area(mask) === 0 ? [] : [{ mask, color, isCurrent }];
  });
  const canvas = session.labelId === null ? null : canvasAt(session, { slice_id, label_id: session.labelId });
  return {
    layers,
    prompts: canvas === null ? NOTHING : shownPrompts(canvas),
    isAsking: canvas !== null && canvas.asking !== null,
  };
}

/** `sceneOf` that gives the same scene again while nothing in it has changed, so that it is not drawn again. */
export function sceneKeeper(): typeof sceneOf {
  let kept: Scene | null = null;
  return (session, labels, view) => {
    const scene = sceneOf(session, labels, view);
    if (kept === null || !isSameScene(kept, scene)) kept = scene;
    return kept;
  };
}

function isSameScene(a: Scene, b: Scene): boolean {
  return (
    a.prompts === b.prompts &&
    a.isAsking === b.isAsking &&
    a.layers.length === b.layers.length &&
    a.layers.every(({ mask, color, isCurrent }, i) => {
      const other = b.layers[i];
      return mask === other?.mask && color === other.color && isCurrent === other.isCurrent;
    })
  );
}

/** The draft's mask for the label in hand; of the others what was accepted, else what is drafted. */
export function maskAt(session: Session, place: Place, { isCurrent }: { isCurrent: boolean }): RunLengths | null {
  const revision = session.revisions[keyOf(place)];
  const canvas = session.canvases[keyOf(place)];
  const drafted = canvas === undefined || canvas.head === 0 ? null : maskOf(canvas.draft);
  const isDrafted = canvas !== undefined && canvas.head > 0;
  return isCurrent && isDrafted ? drafted : (revision?.mask ?? drafted);
}

export function markAt(session: Session, place: Place): Mark {
  const revision = session.revisions[keyOf(place)];
  const canvas = session.canvases[keyOf(place)];
  if (canvas !== undefined && hasUnacceptedChanges(canvas)) {
    const mask = maskOf(canvas.draft);
    if (revision !== undefined || (mask !== null && area(mask) > 0)) return "changed";
  }
  return revision === undefined ? "none" : "accepted";
}

// A mask is composed once per draft, so that equal drafts give the same mask and its picture is kept.
const composed = new WeakMap<DraftState, RunLengths | null>();

function maskOf(draft: DraftState): RunLengths | null {
  const known = composed.get(draft);
  if (known !== undefined) return known;
  const mask = visibleMask(draft);
  composed.set(draft, mask);
  return mask;
}
