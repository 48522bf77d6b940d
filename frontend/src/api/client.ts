/** The server's HTTP API. Every function rejects with an ApiError whose message is a sentence for people. */
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** A refusal. Switch on `code`, show `message`. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** Whether the session has ended, or never began; a wrong password is not that. */
  get isSignedOut(): boolean {
    return this.status === 401 && this.code === "not_signed_in";
  }
}

export const client = createClient<paths>({ baseUrl: "/" });

client.use({
  onRequest: ({ request }) => {
    const token = csrfToken();
    if (token !== undefined) request.headers.set("X-CSRFToken", token);
    return request;
  },
  onError: () => new ApiError(0, "unreachable", "The server cannot be reached; try again in a moment."),
});

/** The data of an answer that has some. */
export function dataOf<Data>(answer: { data?: Data; error?: unknown; response: Response }): Data {
  throwRefusal(answer);
  if (answer.data === undefined) throw refusal(answer.response.status, undefined);
  return answer.data;
}

/** For answers without a body. */
export function throwRefusal({ error, response }: { error?: unknown; response: Response }): void {
  if (!response.ok) throw refusal(response.status, error);
}

interface Transfer {
  onProgress: (share: number) => void;
  signal: AbortSignal;
}

/** What an uploaded checkpoint is called, and what becomes of its adapters; null: what suits it. */
export interface NewModel {
  name: string;
  adapters: "fresh" | "keep" | "drop" | null;
}

/** Sends a checkpoint; what the worker makes of it is told by the upload, later. */
export function uploadModel(
  file: File, { name, adapters }: NewModel, transfer: Transfer,
): Promise<Schemas["ModelUploadOut"]> {
  const form = new FormData();
  form.append("file", file);
  form.append("name", name);
  if (adapters !== null) form.append("adapters", adapters);
  return send<Schemas["ModelUploadOut"]>("/api/models", form, transfer);
}

/** With the progress that fetch cannot tell. */
function send<Answer>(path: string, form: FormData, { onProgress, signal }: Transfer): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    const token = csrfToken();
    if (token !== undefined) request.setRequestHeader("X-CSRFToken", token);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => onProgress(total > 0 ? loaded / total : 0);
    request.onload = () => {
      if (request.status === 201) resolve(request.response as Answer);
      else reject(refusal(request.status, request.response));
    };
    request.onerror = () =>
      reject(new ApiError(0, "connection_lost", "The connection was lost; nothing was uploaded. Try again."));
    request.onabort = () => reject(new ApiError(0, "cancelled", "The upload was cancelled."));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** An answer that refuses, as an error. */
export function refusal(status: number, body: unknown): ApiError {
  const error = (body as { error?: { code?: unknown; message?: unknown } } | null | undefined)?.error;
  return typeof error?.code === "string" && typeof error.message === "string"
    ? new ApiError(status, error.code, error.message)
    : new ApiError(status, "internal", "The server did not answer as expected; try again.");
}

/** What every request that changes something carries. */
export function csrfToken(): string | undefined {
  return /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1];
}
