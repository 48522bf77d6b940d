import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { MemoryRouter } from "react-router";
import { describe, expect, test } from "vitest";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import type { Project } from "./ProjectPage";
import { QuarantineTab } from "./QuarantineTab";
import { StudiesTab } from "./StudiesTab";

type HeldSeries = Schemas["HeldSeriesOut"];

const PROJECT: Project = {
  id: "11111111-1111-4111-8111-111111111111", name: "Livers", role: "lead", labels: [], members: [], is_empty: false, has_escrow: false,
  privacy: { identities: "removed", dates: "shifted", patient_characteristics: false, device: false, safe_private: true },
  actions: ["view", "annotate", "review", "upload", "export", "manage", "delete_study", "release", "view_audit"],
};
const HELD: HeldSeries = {
  id: "22222222-2222-4222-8222-222222222222",
  study_id: "33333333-3333-4333-8333-333333333333",
  study_number: 3,
  subject: "S-AAAAAAAAAAAA",
  arrived_at: "2026-11-26T12:00:00Z",
  series_uid: "2.25.1",
  number: 4,
  volume: 1,
  modality: "US",
  rows: 480,
  columns: 640,
  slices: 20,
  reason: { code: "ultrasound", sentence: "Ultrasound machines often write the name." },
  black_out: null,
};
const other = (changes: Partial<HeldSeries>): HeldSeries => ({ ...HELD, series_uid: "2.25.2", ...changes });

function rendered(page: React.ReactNode, known: (queryClient: QueryClient) => void): string {
  const queryClient = new QueryClient();
  known(queryClient);
  return renderToStaticMarkup(
    <MantineProvider>
      <QueryClientProvider client={queryClient}>
        <MemoryRouter>{page}</MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );
}

/** The page as it is when the server has answered so. */
const quarantine = (held: HeldSeries[]) =>
  rendered(<QuarantineTab project={PROJECT} />, (known) => known.setQueryData(queries.quarantine(PROJECT.id).queryKey, held));

const count = (text: string, part: string) => text.split(part).length - 1;

describe("the quarantine", () => {
  test("without anything says what comes here", () => {
    const html = quarantine([]);
    expect(html).toContain("Nothing is in quarantine");
    expect(html).not.toContain("Release");
  });

  test("shows what is held, why, and what can be done", () => {
    const html = quarantine([HELD]);
    for (const part of ["Study 3", "S-AAAAAAAAAAAA", "US · series 4", "640 × 480, 20 slices", HELD.reason.sentence, "Black out…"]) {
      expect(html).toContain(part);
    }
    expect(html).toContain(`/api/series/${HELD.id}/preview?brightest=true`);
    expect(count(html, 'data-testid="held-series"')).toBe(1);
    expect(html).not.toContain("Release all");
  });

  test("shows the middle of many slices", () => {
    expect(quarantine([{ ...HELD, slices: 500 }])).toContain("preview?index=250");
  });

  test("offers to release together what lies together", () => {
    const second = other({ id: "44444444-4444-4444-8444-444444444444" });
    const html = quarantine([HELD, second, other({ id: "5", study_id: "6", study_number: 7 })]);
    expect(html).toContain("Release all…");
    expect(html).toContain("Release all of study 3…");
    expect(html).not.toContain("Release all of study 7…");
  });

  test.each([
    ["running", "5 of 20 slices blacked out", true],
    ["failed", "Why.", false],
  ] as const)("says how a black-out stands that is %s", (state, words, isBusy) => {
    const black_out = { id: "8", state, slices_done: 5, slices_total: 20, error_message: "Why." };
    const html = quarantine([{ ...HELD, black_out }]);
    expect(html).toContain(words);
    expect(count(html, 'disabled=""')).toBe(isBusy ? 2 : 0);
  });
});

describe("a study with a held series", () => {
  const study = (quarantine: Schemas["Quarantine"]): Schemas["StudyOut"] => ({
    id: HELD.study_id, number: 3, subject: HELD.subject, created_at: HELD.arrived_at,
    series: [{ ...HELD, quarantine, prepared: 0, is_color: false, oddities: [] }], references: [],
  });
  const studies = (state: Schemas["Quarantine"], actions = PROJECT.actions) =>
    rendered(<StudiesTab project={{ ...PROJECT, actions }} />, (known) =>
      known.setQueryData(queries.studies(PROJECT.id).queryKey, [study(state)]));

  test("says so in place of opening it, and leads a lead there", () => {
    // Not one who uploads: that part has no server rendering.
    const html = studies("held", ["view", "delete_study", "release"]);
    expect(html).toContain("in quarantine");
    expect(html).toContain("held-notice");
    expect(count(html, `/projects/${PROJECT.id}/quarantine`)).toBe(2);
    expect(html).not.toContain(">Open<");
  });

  test("leads nobody else there", () => {
    const html = studies("held", ["view", "annotate"]);
    expect(html).toContain("in quarantine");
    expect(html).not.toContain(`/projects/${PROJECT.id}/quarantine`);
    expect(html).not.toContain(">Open<");
  });

  test("opens like any other once it is released", () => {
    const html = studies("released", ["view", "annotate"]);
    expect(html).not.toContain("in quarantine");
    expect(html).toContain("Open");
  });
});
