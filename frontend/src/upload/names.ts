/**
 * The names behind a report's numbers. They may identify patients, so they stay in this tab, for its last upload
 * alone, and go when somebody signs out.
 */
const KEY = "delineate:names of the last upload";

interface Known {
  readonly uploadId: string;
  readonly names: readonly string[];
}

let known: Known | undefined;

export function rememberNames(uploadId: string, names: readonly string[]): void {
  known = { uploadId, names };
  try {
    sessionStorage.setItem(KEY, JSON.stringify(known));
  } catch {
    sessionStorage.removeItem(KEY); // there are too many for it: they last until the page is loaded again
  }
}

/** The name of file `number`, of an upload of this tab. */
export function nameOf(uploadId: string, number: number, filesTotal: number): string | undefined {
  known ??= stored();
  if (known?.uploadId !== uploadId) return undefined;
  if (known.names.length === 1 && filesTotal > 1) return undefined; // it was an archive, whatever it is called
  return known.names[number - 1];
}

export function forgetNames(): void {
  known = undefined;
  sessionStorage.removeItem(KEY);
}

function stored(): Known | undefined {
  const text = sessionStorage.getItem(KEY);
  if (text === null) return undefined;
  const value: unknown = JSON.parse(text);
  return isKnown(value) ? value : undefined;
}

function isKnown(value: unknown): value is Known {
  return (
    typeof value === "object" && value !== null && "uploadId" in value && typeof value.uploadId === "string" &&
    "names" in value && Array.isArray(value.names) && value.names.every((name) => typeof name === "string")
  );
}
