/** What pages read: one key and one fetch per thing, so that a notice can say what has become stale. */
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { client, dataOf } from "./client";

const EVENTS_PER_PAGE = 100;
const COMPARED_MASKS = 24;
const RANKED_SLICES = 50;
const inProject = (project_id: string) => ({ params: { path: { project_id } } });

export const queries = {
  me: () =>
    queryOptions({
      queryKey: ["me"],
      queryFn: async () => dataOf(await client.GET("/api/session")),
      staleTime: Infinity,
    }),
  tokens: () =>
    queryOptions({
      queryKey: ["tokens"],
      queryFn: async () => dataOf(await client.GET("/api/session/tokens")),
    }),
  models: () =>
    queryOptions({
      queryKey: ["models"],
      queryFn: async () => dataOf(await client.GET("/api/models")),
    }),
  modelUploads: () =>
    queryOptions({
      queryKey: ["model uploads"],
      queryFn: async () => dataOf(await client.GET("/api/models/uploads")),
    }),
  projects: () =>
    queryOptions({
      queryKey: ["projects"],
      queryFn: async () => dataOf(await client.GET("/api/projects")),
    }),
  project: (id: string) =>
    queryOptions({
      queryKey: ["project", id],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}", inProject(id))),
    }),
  progress: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "progress"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/progress", inProject(id))),
    }),
  studies: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "studies"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/studies", inProject(id))),
    }),
  subjects: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "subjects"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/subjects", inProject(id))),
    }),
  quarantine: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "quarantine"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/quarantine", inProject(id))),
    }),
  uploads: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "uploads"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/uploads", inProject(id))),
    }),
  upload: (id: string, uploadId: string) =>
    queryOptions({
      queryKey: ["project", id, "uploads", uploadId],
      queryFn: async () =>
        dataOf(await client.GET("/api/uploads/{upload_id}", { params: { path: { upload_id: uploadId } } })),
    }),
  tasks: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "tasks"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/tasks", inProject(id))),
    }),
  exports: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "exports"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/exports", inProject(id))),
    }),
  events: (id: string) =>
    infiniteQueryOptions({
      queryKey: ["project", id, "events"],
      queryFn: async ({ pageParam }) =>
        dataOf(
          await client.GET("/api/projects/{project_id}/events", {
            params: { path: { project_id: id }, query: { limit: EVENTS_PER_PAGE, before: pageParam } },
          }),
        ),
      initialPageParam: null as number | null,
      getNextPageParam: (page) => (page.length < EVENTS_PER_PAGE ? undefined : page.at(-1)?.number),
    }),
  model: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "model"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/model", inProject(id))),
    }),
  projectModels: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "models"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/models", inProject(id))),
    }),
  modelCard: (id: string, digest: string) =>
    queryOptions({
      queryKey: ["project", id, "models", digest, "card"],
      queryFn: async () =>
        dataOf(
          await client.GET("/api/projects/{project_id}/models/{digest}/card", {
            params: { path: { project_id: id, digest } },
            parseAs: "text",
          }),
        ),
    }),
  promotions: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "promotions"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/promotions", inProject(id))),
    }),
  learning: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "learning"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/learning", inProject(id))),
    }),
  parts: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "learning", "parts"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/learning/parts", inProject(id))),
    }),
  runs: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "runs"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/runs", inProject(id))),
    }),
  run: (id: string, run_id: string) =>
    queryOptions({
      queryKey: ["project", id, "runs", run_id],
      queryFn: async () => dataOf(await client.GET("/api/runs/{run_id}", { params: { path: { run_id } } })),
    }),
  comparisons: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "comparisons"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/comparisons", inProject(id))),
    }),
  comparison: (id: string, comparison_id: string) =>
    queryOptions({
      queryKey: ["project", id, "comparisons", comparison_id],
      queryFn: async () =>
        dataOf(await client.GET("/api/comparisons/{comparison_id}", { params: { path: { comparison_id } } })),
    }),
  comparedMasks: (id: string, comparison_id: string) =>
    queryOptions({
      queryKey: ["project", id, "comparisons", comparison_id, "masks"],
      queryFn: async () =>
        dataOf(
          await client.GET("/api/comparisons/{comparison_id}/masks", {
            params: { path: { comparison_id }, query: { limit: COMPARED_MASKS } },
          }),
        ),
    }),
  /** Newest first. */
  rankings: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "rankings"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/rankings", inProject(id))),
    }),
  /** Keyed below the rankings, so that a notice of one refreshes both. */
  rankedSlices: (id: string, ranking_id: string) =>
    queryOptions({
      queryKey: ["project", id, "rankings", ranking_id],
      queryFn: async () =>
        dataOf(
          await client.GET("/api/rankings/{ranking_id}/slices", {
            params: { path: { ranking_id }, query: { limit: RANKED_SLICES } },
          }),
        ),
    }),
  helping: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "helping"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/helping", inProject(id))),
    }),
  drift: (id: string) =>
    queryOptions({
      queryKey: ["project", id, "drift"],
      queryFn: async () => dataOf(await client.GET("/api/projects/{project_id}/drift", inProject(id))),
    }),
};
