/** What became of a checkpoint that was uploaded, in words. */
import type { Schemas } from "../api/client";

export type ModelUpload = Schemas["ModelUploadOut"];

export interface Outcome {
  color: "gray" | "teal" | "red";
  title: string;
  message: string;
}

export const isUnderWay = ({ state }: Pick<ModelUpload, "state">): boolean => state === "pending" || state === "running";

export function outcomeOf(upload: ModelUpload): Outcome {
  switch (upload.state) {
    case "arriving":
    case "pending":
    case "running":
      return {
        color: "gray",
        title: `${upload.name} is being read`,
        message: "The worker checks every weight; a large model takes a minute. You may leave this page.",
      };
    case "done":
      return upload.was_known
        ? { color: "teal", title: `${upload.name} was here already`, message: "The file holds a model that was added before." }
        : { color: "teal", title: `${upload.name} was added`, message: "It stands in the list below, where a model is made the default." };
    case "failed":
      return { color: "red", title: `${upload.name} was not added`, message: upload.error_message };
  }
}

/** What a model is called unless one says otherwise: its file, without the ending. */
export const nameOfFile = (file: string): string => file.replace(/\.[^.]+$/, "").slice(0, 120);

/** Enough of a digest to tell models apart. */
export const shortDigest = (digest: string): string => digest.slice(0, 12);
