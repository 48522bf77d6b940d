/** What was dropped or chosen at once, as one stream: the same files give the same bytes, whatever order they come in. */
import { tarOf, type Source } from "./tar";

// As the server opens them (studies/archive.py).
const ARCHIVE = /\.(zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$/i;

export interface Bundle {
  readonly blob: Blob;
  /** Of the files whose numbers are known before they are sent: number 1, 2, … of the report. */
  readonly names: readonly string[];
  readonly fileCount: number;
  /** Where each file ends in the stream. */
  readonly ends: readonly number[];
  /** Of the files' names, sizes and dates, none of which can be read from it. */
  readonly fingerprint: string;
}

export function bundleOf(files: readonly File[]): Bundle {
  const sources = files.map((file) => ({ path: pathOf(file), file })).sort(inOrder);
  const names = sources.map(({ path }) => path).filter((path) => !ARCHIVE.test(path));
  const [only] = sources;
  const tar =
    sources.length === 1 && only !== undefined && !only.path.includes("/")
      ? { blob: only.file, ends: [only.file.size] }
      : tarOf(sources);
  return { ...tar, names, fileCount: sources.length, fingerprint: fingerprintOf(sources) };
}

/** How many of the files have gone whole with so many bytes. */
export function filesWithin(ends: readonly number[], bytes: number): number {
  let low = 0;
  let high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ends[middle] ?? 0) <= bytes) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Archives last: how many numbers their files take is not known here. */
function inOrder(one: Source, other: Source): number {
  const archives = Number(ARCHIVE.test(one.path)) - Number(ARCHIVE.test(other.path));
  if (archives !== 0) return archives;
  return one.path < other.path ? -1 : Number(one.path > other.path);
}

/** With its folders: as a chosen folder says it, or, of a dropped one, who has read it. */
function pathOf(file: File & { readonly relativePath?: string; readonly path?: string }): string {
  const path = file.webkitRelativePath || file.relativePath || file.path || file.name;
  return path.replace(/^(\.?\/)+/, "");
}

function fingerprintOf(sources: readonly { path: string; file: File }[]): string {
  const told = JSON.stringify(sources.map(({ path, file }) => [path, file.size, file.lastModified]));
  return `delineate-${digest(told, 1)}${digest(told, 2)}`;
}

/** cyrb53, 53 bits: the browser's own digests are missing where a page does not come by https. */
function digest(text: string, seed: number): string {
  let one = 0xdeadbeef ^ seed;
  let two = 0x41c6ce57 ^ seed;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    one = Math.imul(one ^ code, 2654435761);
    two = Math.imul(two ^ code, 1597334677);
  }
  one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(two ^ (two >>> 13), 3266489909);
  two = Math.imul(two ^ (two >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
  return (4294967296 * (2097151 & two) + (one >>> 0)).toString(16).padStart(14, "0");
}
