/** A session for the time a task is on screen: its socket, its requests, and the time spent on it. */
import { useCallback, useEffect, useEffectEvent, useRef, useState, useSyncExternalStore } from "react";
import { begin, count, secondsOf, withInput, without, type Activity } from "../session/activity";
import { run, type Runner } from "../session/runner";
import { currentPlace, keyOf, open, type Session } from "../session/session";
import { connect, taskSocketUrl } from "../socket/connection";
import { fetchJournal, postRevision } from "./taskApi";
import { factsOf, type Task } from "./task";

const COUNT_EVERY_MS = 1000;

/** The session of `task`, which is the same task for as long as the component lives. */
export function useRunner(task: Task, { reloadTask }: { reloadTask: () => void }): Runner {
  const [runner] = useState(() => {
    const { rows, columns } = task.series;
    const sliceIndex = sliceInAddress(window.location);
    return run(open(factsOf(task), { clientId: crypto.randomUUID(), height: rows, width: columns, sliceIndex }));
  });
  const { secondsOn, handedIn } = useActivity(runner);
  const taskId = task.id;
  const reload = useEffectEvent(() => reloadTask());

  useEffect(() => {
    const socket = connect(taskSocketUrl(taskId, window.location), {
      onMessage: (message) => runner.dispatch({ kind: "message", message }),
      onConnection: (connection, sentence) =>
        runner.dispatch({ kind: "connection", connection, ...(sentence !== undefined && { sentence }) }),
      onUnreadable: () => runner.dispatch({ kind: "unreadable_message" }),
    });
    const detach = runner.attach({
      send: socket.send,
      reloadTask: () => reload(),
      loadJournal: (place) => fetchJournal(taskId, place),
      saveRevision: async (place) => {
        const { slice_id, label_id, version } = place;
        const active_seconds = secondsOn(keyOf(place));
        const revision = await postRevision(taskId, { slice_id, label_id, version, active_seconds });
        handedIn(keyOf(place));
        return revision;
      },
    });
    return () => {
      detach();
      socket.close();
    };
  }, [runner, taskId, secondsOn, handedIn]);

  useEffect(() => {
    runner.dispatch({ kind: "task_loaded", task: factsOf(task) });
  }, [runner, task]);

  useEffect(() => {
    const warn = (event: BeforeUnloadEvent) => {
      if (runner.current().outbox.length > 0) event.preventDefault();
    };
    window.addEventListener("beforeunload", warn);
    return () => window.removeEventListener("beforeunload", warn);
  }, [runner]);

  return runner;
}

const NOTE_PLACE_MS = 300; // browsers limit how often an address may change

/** Keeps the slice on screen in the address, so that a reload, or whom it is sent to, comes back to it. */
export function useSliceInAddress(runner: Runner): void {
  const { sliceIndex } = useSession(runner);
  useEffect(() => {
    const timer = setTimeout(() => {
      window.history.replaceState(window.history.state, "", `${window.location.pathname}#slice=${sliceIndex + 1}`);
    }, NOTE_PLACE_MS);
    return () => clearTimeout(timer);
  }, [sliceIndex]);
}

/** Where one was, as a number that people read; or else where a link leads, by the slice's index. */
export function sliceInAddress({ hash, search }: { hash: string; search: string }): number | null {
  const number = /^#slice=(\d+)$/.exec(hash)?.[1];
  if (number !== undefined) return Number(number) - 1;
  const index = /^\d+$/.exec(new URLSearchParams(search).get("slice") ?? "")?.[0];
  return index === undefined ? null : Number(index);
}

export function useSession(runner: Runner): Session {
  return useSyncExternalStore(runner.subscribe, runner.current);
}

interface Stopwatch {
  readonly secondsOn: (key: string) => number;
  readonly handedIn: (key: string) => void;
}

function useActivity(runner: Runner): Stopwatch {
  const activity = useRef<Activity | null>(null);

  useEffect(() => {
    activity.current ??= begin(seconds());
    const noteInput = () => {
      if (activity.current !== null) activity.current = withInput(activity.current, seconds());
    };
    const noteTime = () => {
      const place = currentPlace(runner.current());
      if (activity.current === null || place === null) return;
      const isVisible = document.visibilityState === "visible";
      activity.current = count(activity.current, { now: seconds(), key: keyOf(place), isVisible });
    };
    const inputs = ["pointerdown", "pointermove", "wheel", "keydown"];
    inputs.forEach((name) => window.addEventListener(name, noteInput, { passive: true }));
    const timer = setInterval(noteTime, COUNT_EVERY_MS);
    return () => {
      inputs.forEach((name) => window.removeEventListener(name, noteInput));
      clearInterval(timer);
    };
  }, [runner]);

  const secondsOn = useCallback((key: string) => (activity.current === null ? 0 : secondsOf(activity.current, key)), []);
  const handedIn = useCallback((key: string) => {
    if (activity.current !== null) activity.current = without(activity.current, key);
  }, []);
  return { secondsOn, handedIn };
}

function seconds(): number {
  return performance.now() / 1000;
}
