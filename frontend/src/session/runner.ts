/** Runs a session: holds its present value, performs its effects on the world, and tells who listens. */
import type { JournalEntry } from "./canvas";
import {
  reduce,
  type Effect,
  type FromBrowser,
  type Intent,
  type Place,
  type Revision,
  type Session,
} from "./session";

/** What a session reaches the world with. A failed request rejects with an Error whose message is a sentence. */
export interface World {
  readonly send: (message: FromBrowser) => void;
  /** Has the task fetched anew; what came is dispatched as `task_loaded`. */
  readonly reloadTask: () => void;
  readonly loadJournal: (place: Place) => Promise<readonly JournalEntry[]>;
  readonly saveRevision: (place: Place & { version: number }) => Promise<Revision>;
}

export interface Runner {
  readonly current: () => Session;
  readonly subscribe: (listener: () => void) => () => void;
  readonly dispatch: (intent: Intent) => void;
  /** From now on effects reach `world`; what is returned ends that. Before and after they are dropped. */
  readonly attach: (world: World) => () => void;
}

const SETTLE_MS = 200; // scrolling past a slice is no wish to have it encoded
const RESEND_MS = 2000;

export function run(session: Session): Runner {
  let present = session;
  let world: World | null = null;
  const listeners = new Set<() => void>();
  const timers = new Map<Effect["kind"], ReturnType<typeof setTimeout>>();

  const dispatch = (intent: Intent) => {
    const [next, effects] = reduce(present, intent);
    present = next;
    listeners.forEach((listener) => listener());
    effects.forEach((effect) => {
      if (world !== null) perform(effect, world);
    });
  };

  const perform = (effect: Effect, world: World) => {
    switch (effect.kind) {
      case "send":
        world.send(effect.message);
        return;
      case "prepare_soon":
        later(effect.kind, SETTLE_MS, () => prepare(effect.sliceIds, world));
        return;
      case "resend_soon":
        later(effect.kind, RESEND_MS, () => dispatch({ kind: "resend" }));
        return;
      case "reload_task":
        world.reloadTask();
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

  const prepare = ([first, ...rest]: readonly string[], world: World) => {
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
    attach: (attached) => {
      world = attached;
      return () => {
        timers.forEach((timer) => clearTimeout(timer));
        world = null;
      };
    },
  };
}

function placeOf({ slice_id, label_id }: Place): Place {
  return { slice_id, label_id };
}

function sentenceOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
