/**
 * Everything the workspace knows while somebody delineates, and how it changes.
 *
 * `reduce(session, intent)` gives the next session and the effects to perform; nothing here waits,
 * sends or looks at a clock. Intents come from the person, from the socket, and from requests that
 * effects started.
 *
 * Saving. Each change is an operation in the outbox until the server acknowledges it, and is sent at
 * once, built on the version before it. After a reconnect the outbox is sent again, in order; the
 * server recognises repeats by (client_id, sequence).
 *
 * Asking. One prompt is in flight; newer ones wait on their canvas and are made into a request when
 * they are sent, so that they refine what is then on screen. A request nobody wants any more stays
 * in flight, unwanted, until it is answered.
 */
import type { Box, DraftAction, DraftChanges, Operation, Point, Prompt, Prompts, Protocol, Timing } from "../contract";
import {
  BLANK,
  fromServer,
  isEditedSinceProposal,
  overtaken,
  perform,
  rollBack,
  shownPrompts,
  withJournal,
  type Canvas,
  type JournalEntry,
} from "./canvas";
import { clearing, isEmpty, stroke, visibleMask, type DraftState, type HandWork } from "./draft";
import { area, type RunLengths } from "./masks";

export type ToBrowser = NonNullable<Protocol["to_browser"]>;
export type FromBrowser = NonNullable<Protocol["from_browser"]>;

export type Tool = "positive" | "negative" | "box" | "brush" | "eraser" | "window" | "pan";
export type CanvasKey = `${string}/${string}`;
export type Connection = "connecting" | "open" | "lost" | "ended";

export interface Place {
  readonly slice_id: string;
  readonly label_id: string;
}

/** A mask that was accepted; the newest per slice and label. */
export interface Revision extends Place {
  readonly number: number;
  readonly mask: RunLengths;
}

/** What the server says of a task, as far as a session needs it. */
export interface TaskFacts {
  readonly mayEdit: boolean;
  readonly slices: readonly { readonly id: string; readonly prepared: boolean }[];
  readonly labelIds: readonly string[];
  readonly drafts: readonly (Place & { version: number; accepted_version: number; state: DraftState })[];
  readonly revisions: readonly Revision[];
}

export interface Session {
  readonly clientId: string;
  readonly height: number;
  readonly width: number;
  readonly connection: Connection;
  readonly mayEdit: boolean;
  readonly sliceIds: readonly string[];
  readonly prepared: ReadonlySet<string>;
  readonly labelIds: readonly string[];
  readonly revisions: Readonly<Record<CanvasKey, Revision>>;
  readonly canvases: Readonly<Record<CanvasKey, Canvas>>;
  readonly outbox: readonly Unacknowledged[];
  readonly inFlight: InFlight | null;
  readonly accepting: Accepting | null;
  readonly counted: number; // numbers given out: sequences, requests and notices share the count
  readonly sliceIndex: number;
  readonly labelId: string | null;
  readonly tool: Tool;
  readonly radius: number; // slice pixels
  readonly answer: Answer | null;
  readonly notice: Notice | null;
}

export interface Unacknowledged {
  readonly operation: Operation;
  readonly inverse: DraftChanges;
}

interface InFlight {
  readonly key: CanvasKey;
  readonly requestId: string;
  readonly prompts: Prompts;
  readonly handWork: HandWork;
  readonly isWanted: boolean;
}

interface Accepting extends Place {
  readonly version: number;
  readonly isPosted: boolean;
  readonly goesOn: boolean;
}

/** What came with the last proposal. */
export interface Answer extends Place {
  readonly predictedIou: number;
  readonly timing: Timing;
  readonly serverMs: number;
}

export interface Notice {
  readonly number: number;
  readonly tone: "info" | "error";
  readonly text: string;
}

export type Intent =
  | { readonly kind: "choose_tool"; readonly tool: Tool }
  | { readonly kind: "choose_radius"; readonly radius: number }
  | { readonly kind: "choose_label"; readonly labelId: string }
  | { readonly kind: "go_to_slice"; readonly index: number }
  | { readonly kind: "add_point"; readonly point: Point }
  | { readonly kind: "set_box"; readonly box: Box }
  | { readonly kind: "draw"; readonly mask: RunLengths; readonly erases: boolean }
  | { readonly kind: "clear" }
  | { readonly kind: "undo" }
  | { readonly kind: "redo" }
  | { readonly kind: "ask_again" }
  | { readonly kind: "accept"; readonly goesOn: boolean }
  | { readonly kind: "dismiss_notice" }
  | { readonly kind: "message"; readonly message: ToBrowser }
  | { readonly kind: "connection"; readonly connection: Connection; readonly sentence?: string }
  | { readonly kind: "unreadable_message" }
  | { readonly kind: "resend" }
  | { readonly kind: "task_loaded"; readonly task: TaskFacts }
  | ({ readonly kind: "journal_loaded"; readonly entries: readonly JournalEntry[] } & Place)
  | ({ readonly kind: "journal_failed" } & Place)
  | { readonly kind: "revision_saved"; readonly revision: Revision }
  | { readonly kind: "revision_refused"; readonly sentence: string };

export type Effect =
  | { readonly kind: "send"; readonly message: FromBrowser }
  | { readonly kind: "prepare_soon"; readonly sliceIds: readonly string[] }
  | { readonly kind: "resend_soon" }
  | { readonly kind: "reload_task" }
  | ({ readonly kind: "load_journal" } & Place)
  | ({ readonly kind: "save_revision"; readonly version: number } & Place);

/** Codes of what may go well a moment later: the operation stays in the outbox. */
const PASSING = new Set(["unavailable", "database_unavailable", "broker_unavailable", "internal"]);
const NEIGHBOURS = 3; // slices to either side that are encoded with the one on screen

export const MAX_RADIUS = 100;

/** Starts on the slice given, else in the middle, where there is most to see. */
export function open(
  task: TaskFacts,
  { sliceIndex, ...start }: { clientId: string; height: number; width: number; sliceIndex?: number | null },
): Session {
  const last = task.slices.length - 1;
  const blank: Session = {
    ...start,
    connection: "connecting",
    mayEdit: false,
    sliceIds: [],
    prepared: new Set(),
    labelIds: [],
    revisions: {},
    canvases: {},
    outbox: [],
    inFlight: null,
    accepting: null,
    counted: 0,
    sliceIndex: clamp(sliceIndex ?? Math.floor(last / 2), 0, Math.max(0, last)),
    labelId: null,
    tool: "positive",
    radius: 8,
    answer: null,
    notice: null,
  };
  return withTask(blank, task);
}

export function reduce(session: Session, intent: Intent): readonly [Session, readonly Effect[]] {
  const [changed, effects] = carryOut(session, intent);
  const [asked, prompts] = askNext(changed);
  const [posted, revisions] = saveRevisionWhenFlushed(asked);
  const [fetching, journals] = fetchJournal(posted);
  return [fetching, [...effects, ...prompts, ...revisions, ...journals]];
}

export function keyOf({ slice_id, label_id }: Place): CanvasKey {
  return `${slice_id}/${label_id}`;
}

export function currentPlace(session: Session): Place | null {
  const slice_id = session.sliceIds[session.sliceIndex];
  return slice_id === undefined || session.labelId === null ? null : { slice_id, label_id: session.labelId };
}

export function canvasAt(session: Session, place: Place | null): Canvas {
  return place === null ? BLANK : (session.canvases[keyOf(place)] ?? BLANK);
}

export function saveState({ outbox, connection }: Session): "saved" | "saving" | "waiting" {
  if (outbox.length === 0) return "saved";
  return connection === "open" ? "saving" : "waiting";
}

type Step = readonly [Session, readonly Effect[]];

function carryOut(session: Session, intent: Intent): Step {
  switch (intent.kind) {
    case "choose_tool":
      return [{ ...session, tool: intent.tool }, []];
    case "choose_radius":
      return [{ ...session, radius: clamp(Math.round(intent.radius), 1, MAX_RADIUS) }, []];
    case "choose_label":
      return [session.labelIds.includes(intent.labelId) ? { ...session, labelId: intent.labelId } : session, []];
    case "go_to_slice":
      return goToSlice(session, intent.index);
    case "add_point":
      return edit(session, (canvas) => addPrompts(session, canvas, withPoint(shownPrompts(canvas), intent.point)));
    case "set_box":
      return edit(session, (canvas) => addPrompts(session, canvas, { ...shownPrompts(canvas), box: intent.box }));
    case "draw":
      return operate(session, (canvas) => ({
        action: intent.erases ? "erase" : "draw",
        changes: stroke(canvas.draft, intent),
      }));
    case "clear":
      return operate(forgetAsking(session), ({ draft }) =>
        isEmpty(draft) ? null : { action: "clear", changes: clearing() },
      );
    case "undo":
      return undo(session);
    case "redo":
      return operate(session, ({ redo }) => step("redo", redo));
    case "ask_again":
      return edit(session, (canvas) => (canvas.asking === null ? null : addPrompts(session, canvas, canvas.asking.prompts)));
    case "accept":
      return accept(session, { goesOn: intent.goesOn });
    case "dismiss_notice":
      return [{ ...session, notice: null }, []];
    case "message":
      return receive(session, intent.message);
    case "connection":
      return reconnect(session, intent);
    case "unreadable_message":
      return [notify(session, "error", "The server sent something this page does not understand: reload the page."), []];
    case "resend":
      return [session, session.connection === "open" ? resending(session) : []];
    case "task_loaded":
      return [withTask(session, intent.task), []];
    case "journal_loaded":
      return journalLoaded(session, intent);
    case "journal_failed":
      // Only undo reaches less far back: what is on screen is not in question.
      return [onCanvas(session, intent, (canvas) => ({ ...canvas, journal: { kind: "here" } })), []];
    case "revision_saved":
      return revisionSaved(session, intent.revision);
    case "revision_refused":
      return [notify({ ...session, accepting: null }, "error", intent.sentence), [{ kind: "reload_task" }]];
  }
}

// ---- what the person does

function goToSlice(session: Session, index: number): Step {
  const sliceIndex = clamp(index, 0, session.sliceIds.length - 1);
  if (sliceIndex === session.sliceIndex) return [session, []];
  const moved = { ...session, sliceIndex };
  return [moved, prepareAround(moved)];
}

function prepareAround({ sliceIds, sliceIndex, prepared, mayEdit }: Session): readonly Effect[] {
  const current = sliceIds[sliceIndex];
  if (!mayEdit || current === undefined) return [];
  const around = sliceIds.slice(Math.max(0, sliceIndex - NEIGHBOURS), sliceIndex + NEIGHBOURS + 1);
  const wanted = [current, ...around.filter((id) => id !== current)].filter((id) => !prepared.has(id));
  return [{ kind: "prepare_soon", sliceIds: wanted }];
}

/** Change the canvas on screen, where it may be changed. */
function edit(session: Session, change: (canvas: Canvas) => Canvas | null): Step {
  const place = currentPlace(session);
  if (place === null || !mayChange(session, place)) return [session, []];
  const changed = change(canvasAt(session, place));
  if (changed === null) return [session, []];
  const counted = session.counted + 1; // the order of asking
  return [{ ...onCanvas(session, place, () => changed), counted }, []];
}

function mayChange({ mayEdit, accepting }: Session, place: Place): boolean {
  return mayEdit && (accepting === null || keyOf(accepting) !== keyOf(place));
}

function addPrompts({ counted }: Session, canvas: Canvas, prompts: Prompts): Canvas {
  return { ...canvas, asking: { prompts, state: "waiting", order: counted, logitsExpired: false, requestId: null } };
}

function withPoint({ points, box }: Prompts, point: Point): Prompts {
  return { points: [...points, point], box };
}

/** Make an operation on the canvas on screen: seen at once, kept in the outbox, sent. */
function operate(
  session: Session,
  make: (canvas: Canvas) => { action: DraftAction; changes: DraftChanges } | null,
): Step {
  const place = currentPlace(session);
  if (place === null || !mayChange(session, place)) return [session, []];
  const made = make(canvasAt(session, place));
  return made === null ? [session, []] : record(session, place, made);
}

function record(session: Session, place: Place, made: { action: DraftAction; changes: DraftChanges }): Step {
  const canvas = canvasAt(session, place);
  const done = perform(canvas, made);
  const sequence = session.counted + 1;
  const operation: Operation = {
    kind: "operation",
    ...{ slice_id: place.slice_id, label_id: place.label_id },
    client_id: session.clientId,
    sequence,
    base: canvas.head,
    ...made,
  };
  const inverse = (made.action === "undo" ? done.redo : done.undo).at(-1) ?? {};
  const next = {
    ...onCanvas(session, place, () => done),
    counted: sequence,
    outbox: [...session.outbox, { operation, inverse }],
  };
  return [next, session.connection === "open" ? [{ kind: "send", message: operation }] : []];
}

/** Prompts that were not answered are taken back first: they are what was done last. */
function undo(session: Session): Step {
  const place = currentPlace(session);
  const { asking, undo: stack, journal } = canvasAt(session, place);
  if (asking !== null) return [forgetAsking(session), []];
  if (place !== null && stack.length === 0 && journal.kind === "loading") {
    const owing = { ...journal, undosOwed: journal.undosOwed + 1 };
    return [onCanvas(session, place, (canvas) => ({ ...canvas, journal: owing })), []];
  }
  return operate(session, (canvas) => step("undo", canvas.undo));
}

/** What was asked to be undone before it was known what there is to undo, is undone now. */
function journalLoaded(session: Session, loaded: Extract<Intent, { kind: "journal_loaded" }>): Step {
  const { journal } = canvasAt(session, loaded);
  let present = onCanvas(session, loaded, (canvas) => withJournal(canvas, loaded.entries));
  const effects: Effect[] = [];
  for (let owed = journal.kind === "loading" ? journal.undosOwed : 0; owed > 0; owed--) {
    const undone = mayChange(present, loaded) ? step("undo", canvasAt(present, loaded).undo) : null;
    if (undone === null) break;
    const [next, sent] = record(present, loaded, undone);
    present = next;
    effects.push(...sent);
  }
  return [present, effects];
}

function step(action: "undo" | "redo", stack: readonly DraftChanges[]): { action: DraftAction; changes: DraftChanges } | null {
  const changes = stack.at(-1);
  return changes === undefined ? null : { action, changes };
}

function forgetAsking(session: Session): Session {
  const place = currentPlace(session);
  if (place === null) return session;
  const inFlight =
    session.inFlight?.key === keyOf(place) ? { ...session.inFlight, isWanted: false } : session.inFlight;
  return { ...onCanvas(session, place, (canvas) => ({ ...canvas, asking: null })), inFlight };
}

function accept(session: Session, { goesOn }: { goesOn: boolean }): Step {
  const place = currentPlace(session);
  if (place === null || !session.mayEdit || session.accepting !== null) return [session, []];
  const { head, asking } = canvasAt(session, place);
  if (asking !== null && asking.state !== "failed") {
    return [notify(session, "info", "The model has not answered yet: accept the mask when it is there."), []];
  }
  if (head === 0) return [notify(session, "info", "There is nothing to accept for this label on this slice yet."), []];
  const settled = onCanvas(session, place, (canvas) => ({ ...canvas, asking: null }));
  return [{ ...settled, accepting: { ...place, version: head, isPosted: false, goesOn } }, []];
}

function revisionSaved(session: Session, revision: Revision): Step {
  const { accepting } = session;
  const frozen = onCanvas(session, revision, (canvas) => ({
    ...canvas,
    accepted: accepting?.version ?? canvas.accepted,
  }));
  const saved: Session = {
    ...frozen,
    revisions: { ...session.revisions, [keyOf(revision)]: revision },
    accepting: null,
  };
  const isStillHere = session.sliceIds[session.sliceIndex] === revision.slice_id;
  return accepting?.goesOn === true && isStillHere ? goToSlice(saved, saved.sliceIndex + 1) : [saved, []];
}

// ---- what the server says

function receive(session: Session, message: ToBrowser): Step {
  switch (message.kind) {
    case "welcome": {
      const opened = { ...session, connection: "open" as const, mayEdit: session.mayEdit && message.may_annotate };
      return [opened, [...resending(opened), ...prepareAround(opened)]];
    }
    case "proposal":
      return proposed(session, message);
    case "preparing":
      return [answered(session, message.request_id, { state: "preparing" }), []];
    case "prepared":
      return [withPrepared(session, message.slice_ids), []];
    case "saved": {
      const outbox = session.outbox.filter(({ operation }) => !isNamedBy(operation, message));
      const isOurs = outbox.length < session.outbox.length;
      const saved = isOurs
        ? onCanvas(session, message, (canvas) => ({ ...canvas, saved: Math.max(canvas.saved, message.version) }))
        : session;
      return [{ ...saved, outbox }, []];
    }
    case "refused":
      return refused(session, message);
    case "changed":
      return message.what === "study_deleted"
        ? [ended(session, "The study was deleted, so there is nothing more to delineate here."), []]
        : [session, [{ kind: "reload_task" }]];
  }
}

function resending({ outbox }: Session): readonly Effect[] {
  return outbox.map(({ operation }) => ({ kind: "send", message: operation }));
}

function proposed(session: Session, message: Extract<ToBrowser, { kind: "proposal" }>): Step {
  const { inFlight } = session;
  if (inFlight?.requestId !== message.request_id) return [session, []];
  if (!inFlight.isWanted) return [{ ...session, inFlight: null }, []];
  const { proposal } = message;
  const arrived: Session = {
    ...onCanvas(session, message, (canvas) => ({
      ...canvas,
      asking: canvas.asking?.state === "in_flight" ? null : canvas.asking,
      askedWith: { ...canvas.askedWith, [proposal.proposal_id]: inFlight.handWork },
    })),
    inFlight: null,
    answer: {
      ...{ slice_id: message.slice_id, label_id: message.label_id },
      predictedIou: proposal.predicted_iou,
      timing: message.timing,
      serverMs: message.server_ms,
    },
  };
  return record(arrived, message, { action: "prompt", changes: { prompts: inFlight.prompts, proposal } });
}

/** The request in flight has come back without a proposal; newer prompts of its canvas stay waiting. */
function answered(
  session: Session,
  requestId: string,
  fate: Partial<Pick<NonNullable<Canvas["asking"]>, "state" | "logitsExpired">> | null,
): Session {
  const { inFlight } = session;
  if (inFlight?.requestId !== requestId) return session;
  const canvas = session.canvases[inFlight.key];
  const freed = { ...session, inFlight: null };
  if (canvas?.asking?.state !== "in_flight") return freed;
  const asking = fate === null ? null : { ...canvas.asking, ...fate };
  return { ...freed, canvases: { ...session.canvases, [inFlight.key]: { ...canvas, asking } } };
}

function withPrepared(session: Session, sliceIds: readonly string[]): Session {
  const prepared = new Set([...session.prepared, ...sliceIds]);
  const canvases = mapValues(session.canvases, (canvas, key) =>
    canvas.asking?.state === "preparing" && sliceIds.includes(sliceOf(key))
      ? { ...canvas, asking: { ...canvas.asking, state: "waiting" as const } }
      : canvas,
  );
  return { ...session, prepared, canvases };
}

function refused(session: Session, message: Extract<ToBrowser, { kind: "refused" }>): Step {
  const entry = session.outbox.find(({ operation }) => isNamedBy(operation, message));
  if (entry !== undefined) return operationRefused(session, entry, message);
  if (message.sequence !== null) return [session, []]; // an operation that was already given up
  if (message.request_id === null) return [notify(session, "error", message.message), []];
  if (session.inFlight?.requestId !== message.request_id) return preparationRefused(session, message);
  if (message.code === "refinement_expired") {
    return [answered(session, message.request_id, { state: "waiting", logitsExpired: true }), []];
  }
  const { isWanted } = session.inFlight;
  const isHopeless = message.code === "prompt_outside" || message.code === "prompt_empty";
  const stopped = answered(session, message.request_id, isHopeless ? null : { state: "failed" });
  return [isWanted ? notify(stopped, "error", message.message) : stopped, []];
}

/** A slice that somebody waits for could not be prepared; other prompts that come back are long forgotten. */
function preparationRefused(session: Session, message: Extract<ToBrowser, { kind: "refused" }>): Step {
  const waiting = entries(session.canvases).find(
    ([, { asking }]) => asking?.state === "preparing" && asking.requestId === message.request_id,
  );
  if (waiting === undefined) return [session, []];
  const [key, canvas] = waiting;
  const asking = canvas.asking === null ? null : { ...canvas.asking, state: "failed" as const };
  const stopped = { ...session, canvases: { ...session.canvases, [key]: { ...canvas, asking } } };
  return [notify(stopped, "error", message.message), []];
}

function operationRefused(
  session: Session,
  { operation }: Unacknowledged,
  message: Extract<ToBrowser, { kind: "refused" }>,
): Step {
  const ofCanvas = session.outbox.filter((entry) => keyOf(entry.operation) === keyOf(operation));
  // An operation behind one that is still owed looks stale and is not: both are sent again.
  const isBehind = ofCanvas[0]?.operation.sequence !== operation.sequence;
  if (isBehind) return [session, [{ kind: "resend_soon" }]];
  if (PASSING.has(message.code)) {
    const sentence = `Your last change is not saved yet: ${message.message} It is sent again until it is.`;
    return [session.notice?.text === sentence ? session : notify(session, "error", sentence), [{ kind: "resend_soon" }]];
  }
  const outbox = session.outbox.filter((entry) => !ofCanvas.includes(entry));
  const dropped = { ...session, outbox, accepting: null };
  if (message.code === "stale_base") {
    const theirs = onCanvas(dropped, operation, (canvas) => overtaken(canvas, message));
    const sentence =
      "This mask was changed elsewhere in the meantime: you now see it as it stands there, and your last change was not kept.";
    return [notify(theirs, "error", sentence), []];
  }
  const inverses = ofCanvas.map(({ inverse }) => inverse);
  const restored = onCanvas(dropped, operation, (canvas) => rollBack(canvas, inverses));
  return [notify(restored, "error", message.message), [{ kind: "reload_task" }]];
}

function reconnect(session: Session, { connection, sentence }: { connection: Connection; sentence?: string }): Step {
  if (connection === "ended") return [ended(session, sentence ?? "The session has ended."), []];
  const canvases = mapValues(session.canvases, (canvas) =>
    canvas.asking?.state === "in_flight" || canvas.asking?.state === "preparing"
      ? { ...canvas, asking: { ...canvas.asking, state: "waiting" as const } }
      : canvas,
  );
  // What happened while nobody listened is fetched as soon as there is a connection again.
  const effects: readonly Effect[] = connection === "connecting" ? [{ kind: "reload_task" }] : [];
  return [{ ...session, connection, canvases, inFlight: null }, effects];
}

function ended(session: Session, sentence: string): Session {
  return notify({ ...session, connection: "ended", mayEdit: false, inFlight: null }, "error", sentence);
}

function withTask(session: Session, task: TaskFacts): Session {
  const owed = new Set(session.outbox.map(({ operation }) => keyOf(operation)));
  const canvases = { ...session.canvases };
  for (const draft of task.drafts) {
    const key = keyOf(draft);
    const known = canvases[key];
    // What is on screen and owed is newer than what was fetched.
    if (known === undefined || (!owed.has(key) && draft.version > known.saved)) {
      canvases[key] = fromServer({ draft: draft.state, version: draft.version, accepted: draft.accepted_version });
    } else {
      canvases[key] = { ...known, accepted: Math.max(known.accepted, draft.accepted_version) };
    }
  }
  const labelIds = task.labelIds;
  const isLabelThere = session.labelId !== null && labelIds.includes(session.labelId);
  return {
    ...session,
    mayEdit: task.mayEdit && session.connection !== "ended",
    sliceIds: task.slices.map(({ id }) => id),
    prepared: new Set([...session.prepared, ...task.slices.filter(({ prepared }) => prepared).map(({ id }) => id)]),
    labelIds,
    labelId: isLabelThere ? session.labelId : (labelIds[0] ?? null),
    revisions: Object.fromEntries(task.revisions.map((revision) => [keyOf(revision), revision])),
    canvases,
  };
}

// ---- what follows of itself

/** Send the newest waiting prompt when none is in flight. */
function askNext(session: Session): Step {
  if (session.connection !== "open" || session.inFlight !== null) return [session, []];
  const waiting = entries(session.canvases).filter(([, canvas]) => canvas.asking?.state === "waiting");
  const newest = waiting.sort(([, a], [, b]) => (b.asking?.order ?? 0) - (a.asking?.order ?? 0))[0];
  if (newest === undefined) return [session, []];
  const [key, canvas] = newest;
  if (canvas.asking === null) return [session, []];
  const counted = session.counted + 1;
  const { prompts } = canvas.asking;
  const message: Prompt = {
    kind: "prompt",
    request_id: requestId(session.clientId, counted),
    ...placeOf(key),
    prompts,
    refine: refinement(canvas, prompts),
  };
  const { drawn, erased } = canvas.draft;
  const inFlight = { key, requestId: message.request_id, prompts, handWork: { drawn, erased }, isWanted: true };
  const asking = { ...canvas.asking, state: "in_flight" as const, requestId: message.request_id };
  const canvases = { ...session.canvases, [key]: { ...canvas, asking } };
  return [{ ...session, counted, inFlight, canvases }, [{ kind: "send", message }]];
}

/**
 * What the prompts refine: hand work the model has not seen, else its own last proposal. A new box
 * without hand work starts afresh: it says where the structure is, and the old mask would pull it back.
 */
function refinement(canvas: Canvas, prompts: Prompts): Prompt["refine"] {
  const mask = visibleMask(canvas.draft);
  const isVisible = mask !== null && area(mask) > 0;
  if (isEditedSinceProposal(canvas)) return isVisible ? { kind: "edited_mask", mask } : null;
  const { proposal } = canvas.draft;
  if (proposal === null || isNewBox(canvas.draft.prompts, prompts)) return null;
  if (canvas.asking?.logitsExpired === true) return isVisible ? { kind: "edited_mask", mask } : null;
  return { kind: "previous_logits", proposal_id: proposal.proposal_id };
}

function isNewBox({ box: before }: Prompts, { box: now }: Prompts): boolean {
  return now !== null && JSON.stringify(now) !== JSON.stringify(before);
}

function saveRevisionWhenFlushed(session: Session): Step {
  const { accepting } = session;
  if (accepting === null || accepting.isPosted) return [session, []];
  if (canvasAt(session, accepting).saved < accepting.version) return [session, []];
  const { slice_id, label_id, version } = accepting;
  const posted = { ...session, accepting: { ...accepting, isPosted: true } };
  return [posted, [{ kind: "save_revision", slice_id, label_id, version }]];
}

function fetchJournal(session: Session): Step {
  const place = currentPlace(session);
  const { journal } = canvasAt(session, place);
  if (place === null || !session.mayEdit || journal.kind !== "on_server") return [session, []];
  const loading = onCanvas(session, place, (canvas) => ({ ...canvas, journal: { ...journal, kind: "loading", undosOwed: 0 } }));
  return [loading, [{ kind: "load_journal", ...place }]];
}

// ---- small parts

function onCanvas(session: Session, place: Place, change: (canvas: Canvas) => Canvas): Session {
  const key = keyOf(place);
  return { ...session, canvases: { ...session.canvases, [key]: change(session.canvases[key] ?? BLANK) } };
}

function notify(session: Session, tone: Notice["tone"], text: string): Session {
  const counted = session.counted + 1;
  return { ...session, counted, notice: { number: counted, tone, text } };
}

function isNamedBy(
  operation: Operation,
  { client_id, sequence }: { client_id: string | null; sequence: number | null },
): boolean {
  return operation.client_id === client_id && operation.sequence === sequence;
}

/** A request's id: the client's, with the count in its last group, so that no clock or chance is needed. */
function requestId(clientId: string, count: number): string {
  return clientId.slice(0, 24) + count.toString(16).padStart(12, "0");
}

function placeOf(key: CanvasKey): Place {
  const [slice_id = "", label_id = ""] = key.split("/");
  return { slice_id, label_id };
}

function sliceOf(key: CanvasKey): string {
  return placeOf(key).slice_id;
}

function entries(canvases: Session["canvases"]): [CanvasKey, Canvas][] {
  return Object.entries(canvases) as [CanvasKey, Canvas][];
}

function mapValues(canvases: Session["canvases"], change: (canvas: Canvas, key: CanvasKey) => Canvas): Session["canvases"] {
  return Object.fromEntries(entries(canvases).map(([key, canvas]) => [key, change(canvas, key)]));
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
