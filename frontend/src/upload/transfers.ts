/**
 * The transfers of this tab, one for each project, which go on whatever page is shown. A part at a time is sent and
 * acknowledged (tus); a lost connection, or a server that is away, is tried again by itself, and the same files
 * continue where they stopped, also after the page was closed.
 */
import { defaultOptions, DetailedError, Upload } from "tus-js-client";
import { ApiError, csrfToken, refusal } from "../api/client";
import { bundleOf, filesWithin, type Bundle } from "./bundle";
import { rememberNames } from "./names";
import { bytesPerSecond, withSample, type Sample } from "./pace";

const PART_BYTES = 8 * 1024 ** 2;
// A server that is restarted is back within seconds; after half an hour somebody has to look.
const TRY_AGAIN_AFTER_MS = [500, 1_000, 2_000, 5_000, 10_000, ...Array.from({ length: 60 }, () => 30_000)];
const WORTH_ANOTHER_TRY = new Set([409, 423, 460]);

export interface Transfer {
  readonly stage: "sending" | "waiting" | "paused" | "stopped";
  readonly uploadId?: string;
  readonly bytes: number;
  readonly bytesTotal: number;
  readonly files: number;
  readonly filesTotal: number;
  readonly bytesPerSecond?: number;
  /** It was begun before, and goes on. */
  readonly isContinued: boolean;
  /** Why it stopped. */
  readonly message?: string;
}

interface Running {
  state: Transfer;
  readonly upload: Upload;
}

const running = new Map<string, Running>();
const sent = new Set<string>();
const listeners = new Set<() => void>();

export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function transferOf(projectId: string): Transfer | undefined {
  return running.get(projectId)?.state;
}

/** Whether this tab has sent all of it, whatever a list says that is a moment older. */
export function hasSent(uploadId: string): boolean {
  return sent.has(uploadId);
}

/** Sends files as one upload; `onEnd` is told when it is complete, or cancelled. */
export async function beginTransfer(projectId: string, files: readonly File[], onEnd: () => void): Promise<void> {
  if (running.has(projectId) || files.length === 0) return;
  const bundle = bundleOf(files);
  const upload = newUpload(projectId, bundle, onEnd);
  running.set(projectId, {
    upload,
    state: {
      stage: "sending", bytes: 0, bytesTotal: bundle.blob.size, files: 0, filesTotal: bundle.fileCount,
      isContinued: false,
    },
  });
  tell();
  const [previous] = await upload.findPreviousUploads();
  if (previous !== undefined) {
    upload.resumeFromPreviousUpload(previous);
    change(projectId, { isContinued: true });
  }
  upload.start();
}

export function pauseTransfer(projectId: string): void {
  void running.get(projectId)?.upload.abort();
  change(projectId, { stage: "paused", bytesPerSecond: undefined });
}

export function continueTransfer(projectId: string): void {
  change(projectId, { stage: "sending", message: undefined });
  running.get(projectId)?.upload.start();
}

/** What has been sent of it goes on the server, too. */
export async function cancelTransfer(projectId: string, onEnd: () => void): Promise<void> {
  const upload = running.get(projectId)?.upload;
  forget(projectId);
  try {
    await upload?.abort(true);
  } catch (error) {
    throw refusalIn(error);
  } finally {
    onEnd();
  }
}

/** Of an upload that was discarded elsewhere: the same files begin anew. */
export async function forgetAddress(uploadId: string): Promise<void> {
  const stored = await defaultOptions.urlStorage.findAllUploads();
  for (const { uploadUrl, urlStorageKey } of stored) {
    if (uploadUrl !== null && idIn(uploadUrl) === uploadId) await defaultOptions.urlStorage.removeUpload(urlStorageKey);
  }
}

function newUpload(projectId: string, bundle: Bundle, onEnd: () => void): Upload {
  let samples: readonly Sample[] = [];
  const upload: Upload = new Upload(bundle.blob, {
    endpoint: new URL(`/api/projects/${projectId}/transfers`, window.location.href).href,
    chunkSize: PART_BYTES,
    retryDelays: TRY_AGAIN_AFTER_MS,
    fingerprint: () => Promise.resolve(`${bundle.fingerprint}-${projectId}`),
    removeFingerprintOnSuccess: true,
    onBeforeRequest: (request) => {
      const token = csrfToken();
      if (token !== undefined) request.setHeader("X-CSRFToken", token);
    },
    onUploadUrlAvailable: () => {
      const uploadId = upload.url === null ? undefined : idIn(upload.url);
      if (uploadId === undefined) return;
      rememberNames(uploadId, bundle.names);
      change(projectId, { uploadId });
    },
    onProgress: (bytes) => {
      samples = withSample(samples, { at: performance.now(), bytes });
      change(projectId, {
        stage: "sending", bytes, files: filesWithin(bundle.ends, bytes), bytesPerSecond: bytesPerSecond(samples),
      });
    },
    onShouldRetry: (error) => {
      const status = error.originalResponse?.getStatus() ?? 0;
      if (status >= 400 && status < 500 && !WORTH_ANOTHER_TRY.has(status)) return false;
      samples = [];
      change(projectId, { stage: "waiting", bytesPerSecond: undefined });
      if (status === 0) void stopIfUnreadable();
      return true;
    },
    onError: (error) => change(projectId, { stage: "stopped", message: refusalIn(error).message }),
    onSuccess: () => {
      const uploadId = upload.url === null ? undefined : idIn(upload.url);
      if (uploadId !== undefined) sent.add(uploadId);
      forget(projectId);
      onEnd();
    },
  });

  /** A file that has changed or gone looks like a lost connection, for ever. */
  const stopIfUnreadable = async () => {
    const at = running.get(projectId)?.state.bytes ?? 0;
    try {
      await bundle.blob.slice(Math.max(0, at - PART_BYTES), at + PART_BYTES).arrayBuffer();
    } catch {
      void upload.abort();
      change(projectId, {
        stage: "stopped",
        message: "A file has changed or gone since it was chosen. Cancel, and choose the files again.",
      });
    }
  };
  return upload;
}

function idIn(url: string): string | undefined {
  return new URL(url, window.location.href).pathname.split("/").at(-1);
}

function refusalIn(error: unknown): ApiError {
  const response = error instanceof DetailedError ? error.originalResponse : null;
  if (response === null) return new ApiError(0, "connection_lost", "The server cannot be reached. What has been sent is kept for a day.");
  let body: unknown;
  try {
    body = JSON.parse(response.getBody());
  } catch {
    body = undefined; // not of our making, of something between
  }
  return refusal(response.getStatus(), body);
}

function change(projectId: string, part: Partial<Transfer>): void {
  const current = running.get(projectId);
  if (current === undefined) return;
  current.state = { ...current.state, ...part };
  tell();
}

function forget(projectId: string): void {
  running.delete(projectId);
  tell();
}

function tell(): void {
  const isUnderWay = [...running.values()].some(({ state }) => state.stage === "sending" || state.stage === "waiting");
  window.onbeforeunload = isUnderWay ? (event) => event.preventDefault() : null;
  for (const listener of listeners) listener();
}
