import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { JournalEntry } from "./canvas";
import { run, type World } from "./runner";
import { open, type FromBrowser, type Revision, type TaskFacts } from "./session";

const SLICES = ["a", "b", "c"].map((end) => `00000000-0000-4000-8000-00000000000${end}`);
const LABEL = "00000000-0000-4000-8000-0000000000aa";
const MASK = { height: 1, width: 4, counts: [0, 2, 2] };
const TASK: TaskFacts = {
  mayEdit: true,
  slices: SLICES.map((id) => ({ id, prepared: false })),
  labelIds: [LABEL],
  drafts: [],
  revisions: [],
};

function begin({ revision }: { revision: () => Promise<Revision> }) {
  const sent: FromBrowser[] = [];
  const journal: JournalEntry[] = [];
  const runner = run(open(TASK, { clientId: "12345678-1234-4123-8123-123456789abc", height: 1, width: 4 }));
  const world: World = {
    send: (message) => sent.push(message),
    reloadTask: () => undefined,
    loadJournal: () => Promise.resolve(journal),
    saveRevision: revision,
  };
  const detach = runner.attach(world);
  runner.dispatch({
    kind: "message",
    message: { kind: "welcome", protocol_version: 1, model_digest: "a".repeat(64), may_annotate: true },
  });
  return { runner, sent, detach };
}

describe("a running session", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it("asks for slices to be prepared once scrolling has come to rest", () => {
    const { runner, sent } = begin({ revision: () => Promise.reject(new Error("unused")) });
    for (const index of [0, 1, 2]) runner.dispatch({ kind: "go_to_slice", index });
    expect(sent).toEqual([]);
    vi.advanceTimersByTime(200);
    expect(sent).toEqual([{ kind: "prepare", slice_ids: [SLICES[2], SLICES[0], SLICES[1]] }]);
  });

  it("sends what could not be saved again after two seconds", () => {
    const { runner, sent } = begin({ revision: () => Promise.reject(new Error("unused")) });
    runner.dispatch({ kind: "draw", mask: MASK, erases: false });
    const [operation] = sent;
    if (operation?.kind !== "operation") throw new Error("no operation was sent");
    const { client_id, sequence } = operation;
    const message = { kind: "refused", code: "unavailable", message: "Away.", request_id: null } as const;
    runner.dispatch({ kind: "message", message: { ...message, client_id, sequence, current: null, version: null } });
    vi.advanceTimersByTime(2000);
    expect(sent.filter(({ kind }) => kind === "operation")).toEqual([operation, operation]);
  });

  it("tells what became of an accepted mask", async () => {
    const { runner, sent } = begin({ revision: () => Promise.reject(new Error("The task was submitted.")) });
    runner.dispatch({ kind: "draw", mask: MASK, erases: false });
    runner.dispatch({ kind: "accept", goesOn: false });
    const [operation] = sent;
    if (operation?.kind !== "operation") throw new Error("no operation was sent");
    const { client_id, sequence, slice_id, label_id } = operation;
    const saved = { kind: "saved", client_id, sequence, slice_id, label_id, version: 1 } as const;
    runner.dispatch({ kind: "message", message: saved });
    await vi.waitFor(() => expect(runner.current().notice?.text).toBe("The task was submitted."));
    expect(runner.current().accepting).toBeNull();
  });

  it("tells listeners until they leave, and reaches no world it was detached from", () => {
    const { runner, sent, detach } = begin({ revision: () => Promise.reject(new Error("unused")) });
    let calls = 0;
    const leave = runner.subscribe(() => calls++);
    runner.dispatch({ kind: "choose_tool", tool: "box" });
    leave();
    runner.dispatch({ kind: "choose_tool", tool: "brush" });
    expect(calls).toBe(1);
    runner.dispatch({ kind: "go_to_slice", index: 0 });
    detach();
    vi.advanceTimersByTime(1000);
    runner.dispatch({ kind: "draw", mask: MASK, erases: false });
    expect(sent).toEqual([]);
  });
});
