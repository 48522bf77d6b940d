/** Runs a session: holds its present value, performs the effects, and tells who listens. */
import type { JournalEntry } from "./canvas";
import {
  reduce,
  type Effect,
  type FromBrowser,
  type Intent,
  type Place,
  type Revision,
  type Session,
  type TaskFacts,
} from "./session";

/** What a session reaches the world with. A failed request rejects with an Error whose message is a sentence. */
export interface World {
  readonly send: (message: FromBrowser) => void;
  readonly loadTask: () => Promise<TaskFacts>;
  readonly loadJournal: (place: Place) => Promise<readonly JournalEntry[]>;
  readonly saveRevision: (place: Place & { version: number }) => Promise<Revision>;
}

export interface Runner {
  readonly current: () => Session;
  readonly subscribe: (listener: () => void) => () => void;
  readonly dispatch: (intent: Intent) => void;
  readonly stop: () => void;
}

const SETTLE_MS = 200; // scrolling past a slice is no wish to have it encoded
const RESEND_MS = 2000;

export function run(session: Session, world: World): Runner {
  let present = session;
  const listeners = new Set<() => void>();
  const timers = new Map<Effect["kind"], ReturnType<typeof setTimeout>>();
  let isStopped = false;

  const dispatch = (intent: Intent) => {
    if (isStopped) return;
    const [next, effects] = reduce(present, intent);
    present = next;
    listeners.forEach((listener) => listener());
    effects.forEach(perform);
  };

  const perform = (effect: Effect) => {
    switch (effect.kind) {
      case "send":
        world.send(effect.message);
        return;
      case "prepare_soon":
        later(effect.kind, SETTLE_MS, () => prepare(effect.sliceIds));
        return;
      case "resend_soon":
        later(effect.kind, RESEND_MS, () => dispatch({ kind: "resend" }));
        return;
      case "reload_task":
        world.loadTask().then(
          (task) => dispatch({ kind: "task_loaded", task }),
          () => undefined, // the page's own query tells of it; what is on screen stands
        );
        return;
      case "load_journal":
        world.loadJournal(effect).then(
          (entries) => dispatch({ ...placeOf(effect), kind: "journal_loaded", entries }),
          () => dispatch({ ...placeOf(effect), kind: "journal_failed" }),
        );
        return;
      case "save_revision":
        world.saveRevision(effect).then(
          (revision) => dispatch({ kind: "revision_saved", revision }),
          (error: unknown) => dispatch({ kind: "revision_refused", sentence: sentenceOf(error) }),
        );
    }
  };

  const prepare = ([first, ...rest]: readonly string[]) => {
    if (first !== undefined) world.send({ kind: "prepare", slice_ids: [first, ...rest] });
  };

  const later = (kind: Effect["kind"], delay: number, act: () => void) => {
    clearTimeout(timers.get(kind));
    timers.set(kind, setTimeout(act, delay));
  };

  return {
    current: () => present,
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    dispatch,
    stop: () => {
      isStopped = true;
      timers.forEach((timer) => clearTimeout(timer));
      listeners.clear();
    },
  };
}

function placeOf({ slice_id, label_id }: Place): Place {
  return { slice_id, label_id };
}

function sentenceOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
