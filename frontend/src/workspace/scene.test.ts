import { describe, expect, it } from "vitest";
import { EMPTY_DRAFT, type DraftState } from "../session/draft";
import type { RunLengths } from "../session/masks";
import { open, reduce, type Intent, type Session, type TaskFacts } from "../session/session";
import { markAt, sceneKeeper, sceneOf } from "./scene";
import type { Label } from "./task";

const SLICE = "00000000-0000-4000-8000-00000000000a";
const LIVER: Label = { id: "00000000-0000-4000-8000-0000000000aa", name: "Liver", color: "#aa0000", value: 1 };
const SPLEEN: Label = { id: "00000000-0000-4000-8000-0000000000bb", name: "Spleen", color: "#00bb00", value: 2 };
const LABELS = [LIVER, SPLEEN];
const SHOWN = { areMasksShown: true };
const runs = (...counts: number[]): RunLengths => ({ height: 1, width: 8, counts });
const drawn = (mask: RunLengths): DraftState => ({ ...EMPTY_DRAFT, drawn: mask });

function sessionWith(facts: Partial<TaskFacts>, ...intents: Intent[]): Session {
  const task: TaskFacts = {
    mayEdit: true,
    slices: [{ id: SLICE, prepared: true }],
    labelIds: LABELS.map(({ id }) => id),
    drafts: [],
    revisions: [],
    ...facts,
  };
  const begun = open(task, { clientId: "12345678-1234-4123-8123-123456789abc", height: 1, width: 8 });
  return intents.reduce((session, intent) => reduce(session, intent)[0], begun);
}

const draft = ({ id }: Label, mask: RunLengths, versions: { version: number; accepted_version: number }) => ({
  slice_id: SLICE,
  label_id: id,
  state: drawn(mask),
  ...versions,
});
const revision = ({ id }: Label, mask: RunLengths) => ({ slice_id: SLICE, label_id: id, number: 1, mask });

describe("the scene", () => {
  it("has the draft of the label in hand on top, and of the others what was accepted", () => {
    const session = sessionWith({
      drafts: [
        draft(LIVER, runs(0, 2, 6), { version: 2, accepted_version: 1 }),
        draft(SPLEEN, runs(4, 4), { version: 2, accepted_version: 1 }),
      ],
      revisions: [revision(LIVER, runs(0, 1, 7)), revision(SPLEEN, runs(5, 3))],
    });
    expect(sceneOf(session, LABELS, SHOWN).layers).toEqual([
      { mask: runs(5, 3), color: SPLEEN.color, isCurrent: false },
      { mask: runs(0, 2, 6), color: LIVER.color, isCurrent: true },
    ]);
  });

  it("has of another label what is drafted while nothing was accepted, and nothing that is empty", () => {
    const session = sessionWith({
      drafts: [draft(SPLEEN, runs(4, 4), { version: 1, accepted_version: 0 })],
      revisions: [revision(LIVER, runs(8))],
    });
    expect(sceneOf(session, LABELS, SHOWN).layers.map(({ color }) => color)).toEqual([SPLEEN.color]);
  });

  it("is bare while masks are hidden", () => {
    const session = sessionWith({ revisions: [revision(LIVER, runs(0, 8))] });
    expect(sceneOf(session, LABELS, { areMasksShown: false })).toMatchObject({ layers: [], prompts: { points: [] } });
  });

  it("is the same value while nothing in it changes", () => {
    const keep = sceneKeeper();
    const before = sessionWith({ drafts: [draft(LIVER, runs(0, 2, 6), { version: 1, accepted_version: 0 })] });
    const [tooled] = reduce(before, { kind: "choose_tool", tool: "brush" });
    const [redrawn] = reduce(tooled, { kind: "draw", mask: runs(6, 2), erases: false });
    const first = keep(before, LABELS, SHOWN);
    expect(keep(tooled, LABELS, SHOWN)).toBe(first);
    expect(keep(redrawn, LABELS, SHOWN)).not.toBe(first);
  });
});

describe("a mark", () => {
  const place = { slice_id: SLICE, label_id: LIVER.id };
  const accepted = [revision(LIVER, runs(0, 2, 6))];

  it.each([
    ["none", sessionWith({})],
    ["changed", sessionWith({ drafts: [draft(LIVER, runs(0, 2, 6), { version: 1, accepted_version: 0 })] })],
    ["none", sessionWith({ drafts: [draft(LIVER, runs(8), { version: 2, accepted_version: 0 })] })],
    ["accepted", sessionWith({ revisions: accepted })],
    ["accepted", sessionWith({ drafts: [draft(LIVER, runs(0, 2, 6), { version: 1, accepted_version: 1 })], revisions: accepted })],
    ["changed", sessionWith({ drafts: [draft(LIVER, runs(8), { version: 2, accepted_version: 1 })], revisions: accepted })],
  ] as const)("is %s", (mark, session) => {
    expect(markAt(session, place)).toBe(mark);
  });
});
