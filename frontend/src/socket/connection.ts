/**
 * The workspace's socket, kept open: it comes back by itself, at once when the network does, else
 * after 0.5, 1, 2, 4, 8, 8, … seconds. What was not acknowledged is the session's to send again.
 *
 * The server closes with 4401 (not signed in), 4404 (no such task for this user), 4409 (no model that
 * could answer) and 4423 (the series is in quarantine): those are final.
 * A connection that answers nothing for a while after something was sent is given up as dead, since
 * a browser notices a vanished network only after minutes.
 */
import type { Connection, FromBrowser, ToBrowser } from "../session/session";
import { parseMessage, UnreadableMessage } from "./parse";

export interface Listener {
  readonly onMessage: (message: ToBrowser) => void;
  readonly onConnection: (connection: Exclude<Connection, "open">, sentence?: string) => void;
  readonly onUnreadable: () => void;
}

export interface Socket {
  /** Sends if there is a connection; whoever needs it delivered sends it again after `welcome`. */
  readonly send: (message: FromBrowser) => void;
  readonly close: () => void;
}

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
const PATIENCE_MS = 20_000; // beyond the server's own time-out for a prompt

const FINAL: Readonly<Record<number, string>> = {
  4401: "You are no longer signed in: sign in again to go on.",
  4409: "There is no model yet that could answer: reload the page when one has been added.",
  4423: "The series is in quarantine: a project lead looks first whether a name stands in it.",
  4404: "This task does not exist, or you are not a member of its project any more.",
};

export function connect(url: string, { onMessage, onConnection, onUnreadable }: Listener): Socket {
  let socket: WebSocket | null = null;
  let attempts = 0;
  let retry: ReturnType<typeof setTimeout> | undefined;
  let watchdog: ReturnType<typeof setTimeout> | undefined;
  let isClosed = false;

  const open = () => {
    clearTimeout(retry);
    if (isClosed || socket !== null) return;
    const opened = new WebSocket(url);
    socket = opened;
    opened.onmessage = ({ data }) => {
      clearTimeout(watchdog);
      watchdog = undefined;
      attempts = 0;
      read(data);
    };
    opened.onclose = ({ code }) => {
      if (socket === opened) lose(code);
    };
  };

  const lose = (code: number) => {
    socket = null;
    clearTimeout(watchdog);
    watchdog = undefined;
    if (isClosed) return;
    const final = FINAL[code];
    if (final !== undefined) {
      close();
      onConnection("ended", final);
      return;
    }
    onConnection("lost");
    retry = setTimeout(comeBack, Math.min(FIRST_WAIT_MS * 2 ** attempts, LONGEST_WAIT_MS));
    attempts += 1;
  };

  const comeBack = () => {
    if (isClosed || socket !== null) return;
    onConnection("connecting");
    open();
  };

  const drop = () => {
    const dead = socket;
    if (dead === null) return;
    lose(1006);
    dead.close();
  };

  const read = (data: unknown) => {
    const receivedAt = performance.now();
    let message: ToBrowser;
    try {
      message = parseMessage(String(data));
    } catch (error) {
      if (!(error instanceof UnreadableMessage)) throw error;
      console.error("Unreadable message from the server:", error.message);
      onUnreadable();
      return;
    }
    // The start of the measure that the overlay ends when the mask is drawn.
    if (message.kind === "proposal") performance.mark("mask-received", { startTime: receivedAt });
    onMessage(message);
  };

  const send = (message: FromBrowser) => {
    if (socket?.readyState !== WebSocket.OPEN) return;
    socket.send(JSON.stringify(message));
    if (message.kind !== "prepare") watchdog ??= setTimeout(drop, PATIENCE_MS);
  };

  const close = () => {
    isClosed = true;
    clearTimeout(retry);
    clearTimeout(watchdog);
    globalThis.removeEventListener("online", comeBack);
    globalThis.removeEventListener("offline", drop);
    socket?.close();
    socket = null;
  };

  globalThis.addEventListener("online", comeBack);
  globalThis.addEventListener("offline", drop);
  open();
  return { send, close };
}

/** The address of a task's socket on the server the page came from. */
export function taskSocketUrl(taskId: string, { protocol, host }: Pick<Location, "protocol" | "host">): string {
  return `${protocol === "https:" ? "wss:" : "ws:"}//${host}/ws/tasks/${taskId}`;
}
