import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { FromBrowser } from "../session/session";
import { connect, taskSocketUrl, type Socket } from "./connection";

/** The browser's end of a WebSocket, with the server's end in the test's hand. */
class Line extends EventTarget {
  static readonly OPEN = 1;
  static opened: Line[] = [];
  readyState = 0;
  sent: string[] = [];
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;

  constructor(readonly url: string) {
    super();
    Line.opened.push(this);
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(): void {
    this.readyState = 3;
  }

  welcome(): void {
    this.readyState = 1;
    this.say({ kind: "welcome", protocol_version: 1, model_digest: "a".repeat(64), may_annotate: true });
  }

  say(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  drop(code = 1006): void {
    this.readyState = 3;
    this.onclose?.({ code });
  }
}

const UUID = "00000000-0000-4000-8000-00000000000a";
const PROMPT: FromBrowser = {
  kind: "prompt",
  request_id: "0".repeat(32),
  slice_id: UUID,
  label_id: UUID,
  prompts: { points: [], box: null },
  refine: null,
};

describe("the socket", () => {
  let heard: string[];
  let socket: Socket;
  const network = new EventTarget();
  const line = () => {
    const last = Line.opened.at(-1);
    if (last === undefined) throw new Error("nothing was opened");
    return last;
  };

  beforeEach(() => {
    vi.useFakeTimers();
    Line.opened = [];
    heard = [];
    vi.stubGlobal("WebSocket", Line);
    vi.stubGlobal("addEventListener", network.addEventListener.bind(network));
    vi.stubGlobal("removeEventListener", network.removeEventListener.bind(network));
    vi.spyOn(console, "error").mockImplementation(() => undefined);
    socket = connect("ws://here/ws/tasks/1", {
      onMessage: ({ kind }) => heard.push(kind),
      onConnection: (connection, sentence) => heard.push(sentence === undefined ? connection : `${connection}: ${sentence}`),
      onUnreadable: () => heard.push("unreadable"),
    });
  });

  afterEach(() => {
    socket.close();
    vi.useRealTimers();
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });

  it("hands on what it can read, and says so when it cannot", () => {
    line().welcome();
    line().say({ kind: "surprise" });
    expect(heard).toEqual(["welcome", "unreadable"]);
  });

  it("comes back after half a second, then ever more slowly, and quickly again once it was welcome", () => {
    line().welcome();
    const waits = [500, 1000, 2000, 4000, 8000, 8000];
    for (const wait of waits) {
      line().drop();
      const before = Line.opened.length;
      vi.advanceTimersByTime(wait - 1);
      expect(Line.opened).toHaveLength(before);
      vi.advanceTimersByTime(1);
      expect(Line.opened).toHaveLength(before + 1);
    }
    line().welcome();
    line().drop();
    vi.advanceTimersByTime(500);
    expect(Line.opened).toHaveLength(waits.length + 2);
  });

  it("comes back at once when the network does", () => {
    line().welcome();
    network.dispatchEvent(new Event("offline"));
    expect(heard.at(-1)).toBe("lost");
    network.dispatchEvent(new Event("online"));
    expect(Line.opened).toHaveLength(2);
    expect(heard.at(-1)).toBe("connecting");
  });

  it.each([
    [4401, "sign in again"],
    [4404, "not a member"],
    [4409, "no model"],
    [4423, "quarantine"],
  ])("ends for good with code %i", (code, words) => {
    line().drop(code);
    vi.advanceTimersByTime(60_000);
    expect(Line.opened).toHaveLength(1);
    expect(heard.at(-1)).toContain(words);
  });

  it("sends only where there is somebody to hear it", () => {
    socket.send(PROMPT);
    expect(line().sent).toEqual([]);
    line().welcome();
    socket.send(PROMPT);
    expect(line().sent).toEqual([JSON.stringify(PROMPT)]);
  });

  it("gives a connection up that does not answer, and keeps one that does", () => {
    line().welcome();
    socket.send(PROMPT);
    line().say({ kind: "prepared", slice_ids: [] });
    vi.advanceTimersByTime(60_000);
    expect(Line.opened).toHaveLength(1);
    socket.send(PROMPT);
    vi.advanceTimersByTime(20_000);
    expect(heard.at(-1)).toBe("lost");
    vi.advanceTimersByTime(500);
    expect(Line.opened).toHaveLength(2);
  });

  it("stays closed when it was closed", () => {
    line().welcome();
    socket.close();
    network.dispatchEvent(new Event("online"));
    vi.advanceTimersByTime(60_000);
    expect(Line.opened).toHaveLength(1);
    expect(heard).toEqual(["welcome"]);
  });
});

describe("a task's address", () => {
  it("is as safe as the page's", () => {
    expect(taskSocketUrl("1", { protocol: "https:", host: "here" })).toBe("wss://here/ws/tasks/1");
    expect(taskSocketUrl("1", { protocol: "http:", host: "here:8700" })).toBe("ws://here:8700/ws/tasks/1");
  });
});
