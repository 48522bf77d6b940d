/** The requests of the workspace. */
import { client, dataOf } from "../api/client";
import type { JournalEntry } from "../session/canvas";
import type { Place, Revision } from "../session/session";
import type { Task } from "./task";

export type Verdict = "submit" | "accept" | "return" | "reopen";

export async function fetchTask(taskId: string, signal?: AbortSignal): Promise<Task> {
  return dataOf(await client.GET("/api/tasks/{task_id}", { params: { path: { task_id: taskId } }, signal: signal ?? null }));
}

export async function fetchJournal(taskId: string, { slice_id, label_id }: Place): Promise<readonly JournalEntry[]> {
  const path = { task_id: taskId, slice_id, label_id };
  return dataOf(await client.GET("/api/tasks/{task_id}/drafts/{slice_id}/{label_id}/journal", { params: { path } }));
}

export async function postRevision(
  taskId: string,
  body: Place & { version: number; active_seconds: number },
): Promise<Revision> {
  const params = { path: { task_id: taskId } };
  return dataOf(await client.POST("/api/tasks/{task_id}/revisions", { params, body }));
}

export async function postVerdict(taskId: string, { verdict, comment }: { verdict: Verdict; comment: string }): Promise<void> {
  const params = { path: { task_id: taskId } };
  switch (verdict) {
    case "submit":
      dataOf(await client.POST("/api/tasks/{task_id}/submit", { params }));
      return;
    case "reopen":
      dataOf(await client.POST("/api/tasks/{task_id}/reopen", { params }));
      return;
    case "accept":
      dataOf(await client.POST("/api/tasks/{task_id}/accept", { params, body: { comment } }));
      return;
    case "return":
      dataOf(await client.POST("/api/tasks/{task_id}/return", { params, body: { comment } }));
  }
}
