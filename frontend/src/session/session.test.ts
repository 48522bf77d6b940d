import { describe, expect, it } from "vitest";
import type { DraftState, Operation, Point, Prompt } from "../contract";
import { EMPTY_DRAFT, visibleArea } from "./draft";
import type { RunLengths } from "./masks";
import {
  canvasAt,
  currentPlace,
  open,
  reduce,
  saveState,
  type Effect,
  type Intent,
  type Session,
  type TaskFacts,
  type ToBrowser,
} from "./session";

const [SLICE_A, SLICE_B] = ["00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"];
const LABEL = "00000000-0000-4000-8000-0000000000aa";
const CLIENT = "12345678-1234-4123-8123-123456789abc";
const SIZE = { height: 1, width: 8 };
const TIMING = { queue_ms: 1, load_ms: 1, encode_ms: 0, decode_ms: 5, total_ms: 7 };
const PLUS: Point = { x: 1, y: 0, positive: true };
const MINUS: Point = { x: 6, y: 0, positive: false };

const TASK: TaskFacts = {
  mayEdit: true,
  slices: [
    { id: SLICE_A, prepared: true },
    { id: SLICE_B, prepared: false },
  ],
  labelIds: [LABEL],
  drafts: [],
  revisions: [],
};
const WELCOME: ToBrowser = {
  kind: "welcome",
  protocol_version: 1,
  model_digest: "a".repeat(64),
  may_annotate: true,
};

const runs = (...counts: number[]): RunLengths => ({ ...SIZE, counts });
const said = (message: ToBrowser): Intent => ({ kind: "message", message });
const click = (point: Point): Intent => ({ kind: "add_point", point });
const draw = (...counts: number[]): Intent => ({ kind: "draw", mask: runs(...counts), erases: false });
const erase = (...counts: number[]): Intent => ({ kind: "draw", mask: runs(...counts), erases: true });

/** A page with its server's end in the test's hand. */
class Page {
  session: Session;
  effects: Effect[] = [];

  constructor(task: TaskFacts = TASK) {
    this.session = open(task, { clientId: CLIENT, ...SIZE });
  }

  static opened(task?: TaskFacts): Page {
    return new Page(task).do(said(WELCOME)).forget();
  }

  do(...intents: Intent[]): this {
    for (const intent of intents) {
      const [next, effects] = reduce(this.session, intent);
      this.session = next;
      this.effects.push(...effects);
    }
    return this;
  }

  forget(): this {
    this.effects = [];
    return this;
  }

  get canvas() {
    return canvasAt(this.session, currentPlace(this.session));
  }

  get prompts(): Prompt[] {
    return this.sent.filter((message) => message.kind === "prompt");
  }

  get operations(): Operation[] {
    return this.sent.filter((message) => message.kind === "operation");
  }

  private get sent() {
    return this.effects.flatMap((effect) => (effect.kind === "send" ? [effect.message] : []));
  }

  get lastPrompt(): Prompt {
    const prompt = this.prompts.at(-1);
    if (prompt === undefined) throw new Error("no prompt was sent");
    return prompt;
  }

  propose(id: string, mask: RunLengths, prompt = this.lastPrompt): this {
    return this.do(
      said({
        kind: "proposal",
        request_id: prompt.request_id,
        slice_id: prompt.slice_id,
        label_id: prompt.label_id,
        proposal: {
          proposal_id: id,
          mask,
          predicted_iou: 0.8,
          model_digest: "a".repeat(64),
          prompts: prompt.prompts,
          seal: "sealed",
        },
        timing: TIMING,
        server_ms: 9,
      }),
    );
  }

  save(operation: Operation): this {
    const { client_id, sequence, slice_id, label_id, base } = operation;
    return this.do(said({ kind: "saved", client_id, sequence, slice_id, label_id, version: base + 1 }));
  }

  refuse(code: string, to: Partial<Extract<ToBrowser, { kind: "refused" }>>): this {
    return this.do(
      said({
        kind: "refused",
        code,
        message: "A sentence.",
        request_id: null,
        client_id: null,
        sequence: null,
        current: null,
        version: null,
        ...to,
      }),
    );
  }
}

describe("a click", () => {
  it("is on screen at once and asks the model", () => {
    const page = Page.opened().do(click(PLUS));
    expect(page.canvas.asking?.prompts.points).toEqual([PLUS]);
    expect(page.lastPrompt).toMatchObject({ slice_id: SLICE_A, label_id: LABEL, refine: null });
    expect(page.lastPrompt.request_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(page.operations).toEqual([]);
  });

  it("becomes one saved operation with the proposal that answers it", () => {
    const page = Page.opened().do(click(PLUS)).propose("p1", runs(0, 4, 4));
    expect(visibleArea(page.canvas.draft)).toBe(4);
    expect(page.operations).toHaveLength(1);
    expect(page.operations[0]).toMatchObject({ action: "prompt", base: 0, client_id: CLIENT });
    expect(saveState(page.session)).toBe("saving");
    const [operation] = page.operations;
    if (operation) page.save(operation);
    expect(saveState(page.session)).toBe("saved");
  });

  it("refines the model's own proposal when no hand has changed it", () => {
    const page = Page.opened().do(click(PLUS)).propose("p1", runs(0, 4, 4)).do(click(MINUS));
    expect(page.lastPrompt.refine).toEqual({ kind: "previous_logits", proposal_id: "p1" });
    expect(page.lastPrompt.prompts.points).toEqual([PLUS, MINUS]);
  });

  it("refines the edited mask after a brush stroke, and the logits again once that was answered", () => {
    const page = Page.opened().do(click(PLUS)).propose("p1", runs(0, 4, 4));
    page.do(draw(6, 2), click(PLUS));
    expect(page.lastPrompt.refine).toEqual({ kind: "edited_mask", mask: runs(0, 4, 2, 2) });
    page.propose("p2", runs(0, 3, 5)).do(click(MINUS));
    expect(page.lastPrompt.refine).toEqual({ kind: "previous_logits", proposal_id: "p2" });
  });

  it("refines the logits again when the stroke was undone", () => {
    const page = Page.opened().do(click(PLUS)).propose("p1", runs(0, 4, 4));
    page.do(draw(6, 2), { kind: "undo" }, click(MINUS));
    expect(page.lastPrompt.refine).toEqual({ kind: "previous_logits", proposal_id: "p1" });
  });

  it("refines a mask that was only drawn", () => {
    const page = Page.opened().do(draw(6, 2), click(PLUS));
    expect(page.lastPrompt.refine).toEqual({ kind: "edited_mask", mask: runs(6, 2) });
  });

  it("repeats itself with the mask on screen when the logits have expired", () => {
    const page = Page.opened().do(click(PLUS)).propose("p1", runs(0, 4, 4)).do(click(MINUS));
    page.refuse("refinement_expired", { request_id: page.lastPrompt.request_id });
    expect(page.prompts).toHaveLength(3);
    expect(page.lastPrompt.refine).toEqual({ kind: "edited_mask", mask: runs(0, 4, 4) });
    expect(page.session.notice).toBeNull();
  });

  it("waits while another is in flight, and only the latest is sent", () => {
    const page = Page.opened().do(click(PLUS), click(MINUS), click(PLUS));
    expect(page.prompts).toHaveLength(1);
    page.propose("p1", runs(0, 4, 4));
    expect(page.prompts).toHaveLength(2);
    expect(page.lastPrompt.prompts.points).toEqual([PLUS, MINUS, PLUS]);
    expect(page.lastPrompt.refine).toEqual({ kind: "previous_logits", proposal_id: "p1" });
  });

  it("is dropped by id when it was taken back before the answer", () => {
    const page = Page.opened().do(click(PLUS));
    const taken = page.lastPrompt;
    page.do({ kind: "undo" }, click(MINUS)).propose("p1", runs(0, 8), taken);
    expect(page.canvas.draft).toEqual(EMPTY_DRAFT);
    expect(page.lastPrompt.prompts.points).toEqual([MINUS]);
    page.propose("p2", runs(0, 2, 6));
    expect(visibleArea(page.canvas.draft)).toBe(2);
  });

  it("ignores an answer to nothing", () => {
    const page = Page.opened().do(click(PLUS));
    const before = page.session;
    page.propose("p9", runs(0, 8), { ...page.lastPrompt, request_id: "f".repeat(32) });
    expect(page.session).toBe(before);
  });

  it("is repeated by itself when its slice is prepared", () => {
    const page = Page.opened().do(click(PLUS));
    page.do(said({ kind: "preparing", request_id: page.lastPrompt.request_id, slice_id: SLICE_A }));
    expect(page.canvas.asking?.state).toBe("preparing");
    page.do(said({ kind: "prepared", slice_ids: [SLICE_B] }));
    expect(page.prompts).toHaveLength(1);
    page.do(said({ kind: "prepared", slice_ids: [SLICE_A] }));
    expect(page.prompts).toHaveLength(2);
  });

  it("stays, and can be asked again, when its slice cannot be prepared", () => {
    const page = Page.opened().do(click(PLUS));
    const { request_id } = page.lastPrompt;
    page.do(said({ kind: "preparing", request_id, slice_id: SLICE_A }));
    page.refuse("encoding_failed", { request_id: "f".repeat(32) });
    expect(page.canvas.asking?.state).toBe("preparing");
    page.refuse("encoding_failed", { request_id });
    expect(page.session.notice?.text).toBe("A sentence.");
    expect(page.canvas.asking).toMatchObject({ state: "failed", prompts: { points: [PLUS] } });
    page.do({ kind: "ask_again" });
    expect(page.prompts).toHaveLength(2);
  });

  it("stays, and can be asked again, when the model could not answer", () => {
    const page = Page.opened().do(click(PLUS));
    page.refuse("worker_timeout", { request_id: page.lastPrompt.request_id });
    expect(page.session.notice?.text).toBe("A sentence.");
    expect(page.canvas.asking).toMatchObject({ state: "failed", prompts: { points: [PLUS] } });
    page.do({ kind: "ask_again" });
    expect(page.prompts).toHaveLength(2);
  });

  it("does nothing where one may not edit", () => {
    const page = Page.opened({ ...TASK, mayEdit: false }).do(click(PLUS), draw(0, 8), { kind: "accept", goesOn: true });
    expect(page.effects).toEqual([]);
  });
});

describe("a box", () => {
  it("starts afresh, since it says where the structure is", () => {
    const box = { x0: 0, y0: 0, x1: 4, y1: 1 };
    const page = Page.opened().do(click(PLUS)).propose("p1", runs(0, 8)).do({ kind: "set_box", box });
    expect(page.lastPrompt).toMatchObject({ prompts: { points: [PLUS], box }, refine: null });
    page.propose("p2", runs(0, 4, 4)).do(click(MINUS));
    expect(page.lastPrompt.refine).toEqual({ kind: "previous_logits", proposal_id: "p2" });
  });
});

describe("undo and redo", () => {
  const states = (page: Page) => visibleArea(page.canvas.draft);

  it("walk there and back through every kind of change", () => {
    const page = Page.opened().do(click(PLUS)).propose("p1", runs(0, 4, 4));
    page.do(draw(6, 2), erase(0, 1, 7), { kind: "clear" });
    const seen = [states(page)];
    for (let i = 0; i < 4; i++) seen.push(states(page.do({ kind: "undo" })));
    expect(seen).toEqual([0, 5, 6, 4, 0]);
    for (let i = 0; i < 4; i++) seen.push(states(page.do({ kind: "redo" })));
    expect(seen.slice(5)).toEqual([4, 6, 5, 0]);
    expect(states(page.do({ kind: "redo" }))).toBe(0);
  });

  it("are operations like others, each built on the one before", () => {
    const page = Page.opened().do(draw(6, 2), draw(0, 1, 7), { kind: "undo" }, { kind: "redo" });
    expect(page.operations.map(({ action, base }) => [action, base])).toEqual([
      ["draw", 0],
      ["draw", 1],
      ["undo", 2],
      ["redo", 3],
    ]);
  });

  it("forget the redone when something new is done", () => {
    const page = Page.opened().do(draw(6, 2), { kind: "undo" }, draw(0, 1, 7), { kind: "redo" });
    expect(page.operations).toHaveLength(3);
  });

  it("are rebuilt from the journal after a reload", () => {
    const before = Page.opened().do(draw(6, 2), draw(0, 1, 7), { kind: "undo" });
    const entries = before.operations.map(({ action, changes, base }) => ({ action, changes, version: base + 1 }));
    const drafts = [
      { slice_id: SLICE_A, label_id: LABEL, version: 3, accepted_version: 0, state: before.canvas.draft },
    ];
    const page = Page.opened({ ...TASK, drafts });
    expect(new Page({ ...TASK, drafts }).do(said(WELCOME)).effects).toContainEqual({
      kind: "load_journal",
      slice_id: SLICE_A,
      label_id: LABEL,
    });
    page.do({ kind: "journal_loaded", slice_id: SLICE_A, label_id: LABEL, entries });
    expect(states(page)).toBe(2);
    expect(states(page.do({ kind: "redo" }))).toBe(3);
    expect(states(page.do({ kind: "undo" }, { kind: "undo" }))).toBe(0);
  });

  it("reach what was done before the journal came and after the reload", () => {
    const before = Page.opened().do(draw(6, 2));
    const entries = before.operations.map(({ action, changes, base }) => ({ action, changes, version: base + 1 }));
    const drafts = [
      { slice_id: SLICE_A, label_id: LABEL, version: 1, accepted_version: 0, state: before.canvas.draft },
    ];
    const page = Page.opened({ ...TASK, drafts }).do(draw(0, 1, 7));
    page.do({ kind: "journal_loaded", slice_id: SLICE_A, label_id: LABEL, entries });
    expect(states(page.do({ kind: "undo" }))).toBe(2);
    expect(states(page.do({ kind: "undo" }))).toBe(0);
  });
});

describe("an undo asked for before the journal has come", () => {
  it("is done when it comes", () => {
    const before = Page.opened().do(draw(6, 2), draw(0, 1, 7));
    const entries = before.operations.map(({ action, changes, base }) => ({ action, changes, version: base + 1 }));
    const state = before.canvas.draft;
    const drafts = [{ slice_id: SLICE_A, label_id: LABEL, version: 2, accepted_version: 0, state }];
    const page = Page.opened({ ...TASK, drafts }).do({ kind: "undo" });
    expect(page.operations).toEqual([]);
    page.do({ kind: "journal_loaded", slice_id: SLICE_A, label_id: LABEL, entries });
    expect(page.operations.map(({ action, base }) => [action, base])).toEqual([["undo", 2]]);
    expect(visibleArea(page.canvas.draft)).toBe(2);
  });
});

describe("saving", () => {
  it("sends what was not acknowledged again, in order, after a reconnect", () => {
    const page = Page.opened().do(draw(6, 2), draw(0, 1, 7));
    const [first] = page.operations;
    if (first) page.save(first);
    page.do({ kind: "connection", connection: "lost" }, draw(2, 1, 5));
    expect(saveState(page.session)).toBe("waiting");
    page.forget().do({ kind: "connection", connection: "connecting" }, said(WELCOME));
    expect(page.operations.map(({ base }) => base)).toEqual([1, 2]);
    expect(page.effects).toContainEqual({ kind: "reload_task" });
    page.operations.forEach((operation) => page.save(operation));
    expect(saveState(page.session)).toBe("saved");
    expect(page.canvas.saved).toBe(3);
  });

  it("asks again after a reconnect what was in flight", () => {
    const page = Page.opened().do(click(PLUS), { kind: "connection", connection: "lost" });
    page.forget().do(said(WELCOME));
    expect(page.prompts).toHaveLength(1);
  });

  it("takes the draft as it stands elsewhere when ours is stale, and says so", () => {
    const theirs: DraftState = { ...EMPTY_DRAFT, drawn: runs(0, 1, 7) };
    const page = Page.opened().do(draw(6, 2), draw(4, 1, 3));
    const [first, second] = page.operations;
    page.refuse("stale_base", { client_id: CLIENT, sequence: first?.sequence ?? 0, current: theirs, version: 7 });
    page.refuse("stale_base", { client_id: CLIENT, sequence: second?.sequence ?? 0, current: theirs, version: 7 });
    expect(page.canvas).toMatchObject({ draft: theirs, head: 7, saved: 7, undo: [], redo: [] });
    expect(page.session.notice?.text).toContain("changed elsewhere");
    expect(saveState(page.session)).toBe("saved");
    page.forget().do(draw(6, 2));
    expect(page.operations[0]?.base).toBe(7);
  });

  it("keeps what a part that is away could not save, and sends it again", () => {
    const page = Page.opened().do(draw(6, 2), draw(0, 1, 7));
    const [first, second] = page.operations;
    page.refuse("unavailable", { client_id: CLIENT, sequence: first?.sequence ?? 0 });
    page.refuse("stale_base", { client_id: CLIENT, sequence: second?.sequence ?? 0, current: null, version: 0 });
    expect(page.effects.filter(({ kind }) => kind === "resend_soon")).toHaveLength(2);
    page.forget().do({ kind: "resend" });
    expect(page.operations.map(({ sequence }) => sequence)).toEqual([first?.sequence, second?.sequence]);
    expect(visibleArea(page.canvas.draft)).toBe(3);
  });

  it("takes back what was refused for good", () => {
    const page = Page.opened().do(draw(6, 2));
    page.operations.forEach((operation) => page.save(operation));
    page.forget().do(draw(0, 1, 7), draw(3, 1, 4));
    page.refuse("task_closed", { client_id: CLIENT, sequence: page.operations[0]?.sequence ?? 0 });
    expect(visibleArea(page.canvas.draft)).toBe(2);
    expect(page.canvas).toMatchObject({ head: 1, saved: 1 });
    expect(page.session.notice?.text).toBe("A sentence.");
    expect(page.session.outbox).toEqual([]);
  });

  it("keeps what is on screen when a slower answer brings an older task", () => {
    const page = Page.opened().do(draw(6, 2));
    page.do({
      kind: "task_loaded",
      task: {
        ...TASK,
        drafts: [{ slice_id: SLICE_A, label_id: LABEL, version: 1, accepted_version: 0, state: EMPTY_DRAFT }],
      },
    });
    expect(visibleArea(page.canvas.draft)).toBe(2);
  });

  it("ends with the sentence the socket closed with", () => {
    const page = Page.opened().do({ kind: "connection", connection: "ended", sentence: "Signed out." }, draw(6, 2));
    expect(page.session).toMatchObject({ connection: "ended", mayEdit: false, outbox: [] });
    expect(page.session.notice?.text).toBe("Signed out.");
  });
});

describe("accepting", () => {
  const revision = { slice_id: SLICE_A, label_id: LABEL, number: 1, mask: runs(6, 2) };

  it("waits until everything is saved, then freezes that version and goes on", () => {
    const page = Page.opened().do(draw(6, 2), { kind: "accept", goesOn: true });
    expect(page.effects.some(({ kind }) => kind === "save_revision")).toBe(false);
    page.operations.forEach((operation) => page.save(operation));
    expect(page.effects).toContainEqual({ kind: "save_revision", slice_id: SLICE_A, label_id: LABEL, version: 1 });
    page.do({ kind: "revision_saved", revision });
    expect(page.session).toMatchObject({ sliceIndex: 1, accepting: null });
    expect(canvasAt(page.session, revision).accepted).toBe(1);
    expect(page.session.revisions[`${SLICE_A}/${LABEL}`]).toEqual(revision);
  });

  it("is asked for once", () => {
    const page = Page.opened().do(draw(6, 2));
    page.operations.forEach((operation) => page.save(operation));
    page.do({ kind: "accept", goesOn: false }, { kind: "accept", goesOn: false }, { kind: "choose_tool", tool: "box" });
    expect(page.effects.filter(({ kind }) => kind === "save_revision")).toHaveLength(1);
  });

  it("says what is missing where there is nothing, or not yet", () => {
    expect(Page.opened().do({ kind: "accept", goesOn: true }).session.notice?.text).toContain("nothing to accept");
    const asked = Page.opened().do(click(PLUS), { kind: "accept", goesOn: true });
    expect(asked.session.notice?.text).toContain("not answered yet");
  });

  it("stays where it is when refused", () => {
    const page = Page.opened().do(draw(6, 2), { kind: "accept", goesOn: true });
    page.operations.forEach((operation) => page.save(operation));
    page.do({ kind: "revision_refused", sentence: "The task was submitted." });
    expect(page.session).toMatchObject({ sliceIndex: 0, accepting: null });
    expect(page.session.notice?.text).toBe("The task was submitted.");
  });
});

describe("going about", () => {
  it("stays within the series and asks for what is around to be prepared", () => {
    const page = Page.opened().do({ kind: "go_to_slice", index: 99 });
    expect(page.session.sliceIndex).toBe(1);
    expect(page.effects).toEqual([{ kind: "prepare_soon", sliceIds: [SLICE_B] }]);
    expect(page.do({ kind: "go_to_slice", index: -5 }).session.sliceIndex).toBe(0);
  });

  it("starts in the middle, or on the slice it is given, as far as there is one", () => {
    const slices = ["a", "b", "c", "d", "e"].map((id) => ({ id, prepared: true }));
    const startOn = (sliceIndex: number | null) => open({ ...TASK, slices }, { clientId: CLIENT, ...SIZE, sliceIndex }).sliceIndex;
    expect([null, 0, 4, 9, -1].map(startOn)).toEqual([2, 0, 4, 4, 0]);
  });

  it("keeps the label while it exists", () => {
    const other = "00000000-0000-4000-8000-0000000000bb";
    const page = Page.opened({ ...TASK, labelIds: [LABEL, other] }).do({ kind: "choose_label", labelId: other });
    page.do({ kind: "task_loaded", task: TASK });
    expect(page.session.labelId).toBe(LABEL);
    expect(page.do({ kind: "choose_label", labelId: other }).session.labelId).toBe(LABEL);
  });

  it("fetches the task anew when something beside the drafts changed", () => {
    const page = Page.opened().do(said({ kind: "changed", what: "labels" }));
    expect(page.effects).toEqual([{ kind: "reload_task" }]);
    page.do(said({ kind: "changed", what: "study_deleted" }));
    expect(page.session).toMatchObject({ connection: "ended", mayEdit: false });
  });
});
