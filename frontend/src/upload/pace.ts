/** How fast bytes have gone of late, and how long the rest will take. */
const OVER_MS = 10_000;

export interface Sample {
  readonly at: number;
  readonly bytes: number;
}

/** The samples of the last seconds with one more; fewer bytes than before begin anew. */
export function withSample(samples: readonly Sample[], sample: Sample): Sample[] {
  const last = samples.at(-1);
  if (last !== undefined && sample.bytes < last.bytes) return [sample];
  return [...samples.filter(({ at }) => at > sample.at - OVER_MS), sample];
}

export function bytesPerSecond(samples: readonly Sample[]): number | undefined {
  const [first] = samples;
  const last = samples.at(-1);
  if (first === undefined || last === undefined || last.at - first.at < 1_000) return undefined;
  return (1000 * (last.bytes - first.bytes)) / (last.at - first.at);
}

export function timeInWords(seconds: number): string {
  if (seconds < 60) return "less than a minute";
  if (seconds < 3600) return `about ${Math.round(seconds / 60)} min`;
  return `about ${(seconds / 3600).toFixed(1)} h`;
}
