/** Seconds somebody really worked on a mask: the page in sight, and input a short while ago. */

export const IDLE_AFTER_S = 20;

export interface Activity {
  readonly secondsByKey: Readonly<Record<string, number>>;
  readonly lastInputAt: number | null; // seconds
  readonly countedUntil: number; // seconds
}

export function begin(now: number): Activity {
  return { secondsByKey: {}, lastInputAt: null, countedUntil: now };
}

export function withInput(activity: Activity, now: number): Activity {
  return { ...activity, lastInputAt: now };
}

/** Count the time since the last count for what is on screen, as far as it was active. */
export function count(
  activity: Activity,
  moment: { now: number; key: string; isVisible: boolean },
): Activity {
  const { lastInputAt, countedUntil, secondsByKey } = activity;
  const activeUntil = lastInputAt === null ? -Infinity : lastInputAt + IDLE_AFTER_S;
  const seconds = moment.isVisible ? Math.max(0, Math.min(moment.now, activeUntil) - countedUntil) : 0;
  return {
    ...activity,
    countedUntil: moment.now,
    secondsByKey: { ...secondsByKey, [moment.key]: (secondsByKey[moment.key] ?? 0) + seconds },
  };
}

export function secondsOf({ secondsByKey }: Activity, key: string): number {
  return Math.round((secondsByKey[key] ?? 0) * 10) / 10;
}

/** What was counted has been handed in with a revision. */
export function without(activity: Activity, key: string): Activity {
  return { ...activity, secondsByKey: { ...activity.secondsByKey, [key]: 0 } };
}
