/** A project's notices: each says what has become stale; after a gap everything is taken to be. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { queries } from "../api/queries";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;
const NOT_SIGNED_IN = 4401;
const NOT_A_MEMBER = 4404;

export const STALE: Readonly<Record<string, readonly string[]>> = {
  upload: ["uploads", "events"],
  studies: ["studies", "subjects", "quarantine", "tasks", "progress", "learning", "events"],
  study_deleted: ["studies", "subjects", "quarantine", "tasks", "progress", "learning", "rankings", "events"],
  subjects: ["studies", "subjects", "tasks", "learning", "events"],
  erasure: ["subjects", "exports", "learning", "models", "events"],
  quarantine: ["quarantine"],
  encoding: ["studies", "tasks", "progress"],
  task: ["tasks", "progress", "learning", "events"],
  revisions: ["subjects", "tasks", "progress", "learning", "rankings", "helping", "events"],
  export: ["exports", "events"],
  model: ["model", "models", "promotions", "helping", "studies", "tasks", "progress"],
  learning: ["learning", "events"],
  run: ["runs", "learning", "models", "events"],
  promotion: ["promotions", "models", "model", "helping", "events"],
  comparison: ["comparisons"],
  ranking: ["rankings"],
};

/** Keeps the project's queries fresh while the page is open. */
export function useNotices(projectId: string): void {
  const queryClient = useQueryClient();
  useEffect(() => {
    let socket: WebSocket | undefined;
    let timer: number | undefined;
    let pauseMs = FIRST_PAUSE_MS;
    let closed = false;

    const invalidate = (...key: string[]) => void queryClient.invalidateQueries({ queryKey: ["project", projectId, ...key] });

    const invalidateProject = () =>
      void queryClient.invalidateQueries({ queryKey: queries.project(projectId).queryKey, exact: true });

    const open = () => {
      const address = new URL(`/ws/projects/${projectId}`, window.location.href);
      address.protocol = address.protocol.replace("http", "ws");
      socket = new WebSocket(address);
      socket.onopen = () => {
        pauseMs = FIRST_PAUSE_MS;
        invalidate();
      };
      socket.onmessage = ({ data }: MessageEvent<string>) => {
        const what = whatOf(data);
        const stale = what === undefined ? undefined : STALE[what];
        // Some of its settings can be chosen only while it has no studies.
        if (what === "studies" || what === "study_deleted") invalidateProject();
        if (stale === undefined) invalidate();
        else stale.forEach((part) => invalidate(part));
      };
      socket.onclose = ({ code }) => {
        if (closed) return;
        if (code === NOT_SIGNED_IN) void queryClient.invalidateQueries({ queryKey: queries.me().queryKey });
        if (code === NOT_A_MEMBER) invalidate();
        if (code === NOT_SIGNED_IN || code === NOT_A_MEMBER) return;
        timer = window.setTimeout(open, pauseMs);
        pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
      };
    };
    open();
    return () => {
      closed = true;
      window.clearTimeout(timer);
      socket?.close();
    };
  }, [projectId, queryClient]);
}

function whatOf(data: string): string | undefined {
  try {
    const notice: unknown = JSON.parse(data);
    if (typeof notice === "object" && notice !== null && "what" in notice && typeof notice.what === "string") {
      return notice.what;
    }
  } catch {
    // Not JSON: treated as "something changed".
  }
  return undefined;
}
