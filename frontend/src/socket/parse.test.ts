import { describe, expect, it } from "vitest";
import { parseMessage, parseOwnMessage, UnreadableMessage } from "./parse";

/** The contract's examples: the same files that the server's tests read. */
const golden = examples(import.meta.glob("../../../tests/golden/socket/*.json", { query: "?raw", eager: true, import: "default" }));
const invalid = examples(import.meta.glob("../../../tests/invalid/socket/*.json", { query: "?raw", eager: true, import: "default" }));

function examples(files: Record<string, unknown>): [string, string][] {
  return Object.entries(files).map(([path, text]) => [path.split("/").at(-1) ?? path, String(text)]);
}

describe("a message from the server", () => {
  it("is parsed", () => {
    const text = JSON.stringify({ kind: "prepared", slice_ids: ["00000000-0000-4000-8000-00000000000a"] });
    expect(parseMessage(text)).toEqual(JSON.parse(text));
  });

  it.each([
    ["no JSON", "prepared"],
    ["an unknown kind", '{"kind":"surprise"}'],
    ["a missing field", '{"kind":"prepared"}'],
    ["a field too many", '{"kind":"prepared","slice_ids":[],"extra":1}'],
    ["a wrong type", '{"kind":"prepared","slice_ids":"all"}'],
    ["what only a browser says", '{"kind":"prepare","slice_ids":["00000000-0000-4000-8000-00000000000a"]}'],
    ["nothing", "null"],
  ])("is refused when it is %s", (_what, text) => {
    expect(() => parseMessage(text)).toThrow(UnreadableMessage);
  });
});

describe("a mask in a message", () => {
  const withCounts = (counts: unknown) => {
    const id = "0".repeat(32);
    const uuid = "00000000-0000-4000-8000-00000000000a";
    const timing = { queue_ms: 1, load_ms: 1, encode_ms: 0, decode_ms: 5, total_ms: 7 };
    const mask = { height: 2, width: 3, counts };
    const prompts = { points: [], box: null };
    const made = { proposal_id: id, mask, predicted_iou: 0.5, model_digest: "a".repeat(64), prompts, seal: "s" };
    const message = { kind: "proposal", request_id: id, slice_id: uuid, label_id: uuid, proposal: made, timing, server_ms: 9 };
    return JSON.stringify(message);
  };

  it.each([[[6]], [[0, 6]], [[1, 2, 3]]])("may have the runs %j", (counts) => {
    expect(reads(withCounts(counts))).toBe(true);
  });

  it.each([[[5]], [[7]], [[1, 0, 5]], [[-1, 7]], [[1.5, 4.5]], [["6"]], [[null, 6]], ["6"], [null]])(
    "may not have the runs %j",
    (counts) => {
      expect(reads(withCounts(counts))).toBe(false);
    },
  );
});

describe("the contract's examples", () => {
  it("are read where they are golden", () => {
    expect(golden.length).toBeGreaterThan(10);
    expect(golden.filter(([, text]) => !reads(text)).map(([name]) => name)).toEqual([]);
  });

  it("are refused where they are invalid", () => {
    expect(invalid.length).toBeGreaterThan(10);
    expect(invalid.filter(([, text]) => reads(text)).map(([name]) => name)).toEqual([]);
  });
});

function reads(text: string): boolean {
  return [parseMessage, parseOwnMessage].some((parse) => {
    try {
      parse(text);
      return true;
    } catch (error) {
      if (error instanceof UnreadableMessage) return false;
      throw error;
    }
  });
}
