import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { MemoryRouter } from "react-router";
import { describe, expect, test } from "vitest";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { STALE } from "../app/notices";
import { sliceInAddress } from "../workspace/useSession";
import type { Project } from "./ProjectPage";
import { Suggestions } from "./SuggestedNext";
import { addressOf, STRATEGIES, undoneFirst, type RankedSlice } from "./suggestions";

type Ranking = Schemas["RankingOut"];
const RANKING: Ranking = {
  id: "r", strategy: "mix", state: "done", model: { digest: "aa", name: "SAM-Med2D" }, scored: 12, total: 40,
  created_at: "2026-11-23T12:00:00Z", finished_at: null, error_code: "", error_message: "",
};
const SLICE: RankedSlice = {
  position: 1, slice_id: "a", series_id: "s", task_id: "t", picture: "/dicomweb/picture", subject: "S-AAAAAAAAAAAA", index: 6, score: 0.5,
  reason: "The model is unsure.", done: false,
};

/** The panel as it is when the server has answered so. */
function panel(rankings: Ranking[], slices: RankedSlice[] = [], actions: Schemas["Action"][] = ["learn"]): string {
  const queryClient = new QueryClient();
  queryClient.setQueryData(queries.rankings("p").queryKey, rankings);
  queryClient.setQueryData(queries.rankedSlices("p", "r").queryKey, slices);
  return renderToStaticMarkup(
    <MantineProvider>
      <QueryClientProvider client={queryClient}>
        <MemoryRouter>
          <Suggestions project={{ id: "p", actions } as Project} />
        </MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );
}

describe("suggestions", () => {
  test("before any say what to do", () => {
    expect(panel([])).toContain("Nothing has been suggested yet. Choose");
    const others = panel([], [], ["annotate"]);
    expect(others).toContain("A lead of the project");
    expect(others).not.toContain(">Suggest<");
  });

  test("say how far they are, and why they failed", () => {
    expect(panel([{ ...RANKING, state: "running" }])).toContain("12 of 40 slices looked at");
    expect(panel([{ ...RANKING, state: "pending", scored: 0, total: 0 }])).toContain("Waits for its turn.");
    expect(panel([{ ...RANKING, state: "failed", error_message: "No slice is prepared." }])).toContain("No slice is prepared.");
  });

  test("lead to the task at the slice, but for what is done", () => {
    const html = panel([RANKING], [SLICE, { ...SLICE, slice_id: "b", done: true }]);
    expect(html.split('data-testid="suggested-slice"')).toHaveLength(3);
    for (const part of ["slice 7", "The model is unsure.", 'src="/dicomweb/picture"', ">done<"]) expect(html).toContain(part);
    expect(html.split('href="/tasks/t?slice=6"')).toHaveLength(2);
    expect(addressOf(SLICE)).toBe("/tasks/t?slice=6");
  });

  test("have what waits for a mask first", () => {
    const ranked = [[1, true], [3, false], [2, false]].map(([position, done]) => ({ ...SLICE, position, done }) as RankedSlice);
    expect(undoneFirst(ranked).map(({ position }) => position)).toEqual([2, 3, 1]);
  });

  test("have a sentence for every strategy", () => {
    expect(STRATEGIES.map(({ value }) => value).sort()).toEqual(["diversity", "mix", "random", "rare_labels", "uncertainty"]);
    for (const { sentence } of STRATEGIES) expect(sentence).toMatch(/\.$/);
  });

  test("are made stale by their notice", () => {
    expect(STALE.ranking).toContain(queries.rankings("p").queryKey[2]);
    expect(queries.rankedSlices("p", "r").queryKey.slice(0, 3)).toEqual(queries.rankings("p").queryKey);
  });
});

test.each([
  ["", "", null], ["#slice=7", "", 6], ["", "?slice=6", 6], ["#slice=3", "?slice=6", 2], ["", "?slice=x", null], ["#other", "?slice=0", 0],
])("an address with %j and %j opens slice %j", (hash, search, index) => {
  expect(sliceInAddress({ hash, search })).toBe(index);
});
