import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { MemoryRouter } from "react-router";
import { describe, expect, test } from "vitest";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { STALE } from "../app/notices";
import type { Project } from "../pages/ProjectPage";
import type { RunLengths } from "../session/masks";
import { fallingFirst } from "./DriftSection";
import { shareOf } from "./HelpingSection";
import { clicksInWords, differenceInWords, intervalInWords, sideOf, spanOf } from "./judgement";
import { ModelTab } from "./ModelTab";
import { pathOf } from "./outlines";
import { curveOf, durationInWords, percentOf, stageInWords, timeInWords, type Run } from "./progress";
import { areSame, formOf, settingsInWords, settingsOf, type LearningSettings } from "./settingsForm";
import { changeTo, lastTimeOf, lineageOf, marksOf, pairToCompare, timelineOf, underPreparation, type ProjectModel } from "./timeline";
import type { Verdict } from "./Verdict";

const BASE: ProjectModel = {
  digest: "aa".repeat(32), name: "SAM-Med2D", variant: "vit_b", trained: true, parent: "", created_at: "2026-11-20T12:00:00Z",
  is_active: true, is_roll_back: false, is_default: true, run_id: null, verdict: null, metrics: {}, answered: [], trained_on_erased: false,
};
const MADE: ProjectModel = {
  ...BASE, digest: "bb".repeat(32), name: "Liver, run 1", parent: BASE.digest, created_at: "2026-11-21T12:00:00Z",
  is_active: false, is_default: false, run_id: "11111111-1111-4111-8111-111111111111", verdict: "better",
  metrics: { dice: 0.91 },
};
const RUN: Run = {
  id: "11111111-1111-4111-8111-111111111111", number: 1, state: "running", stage: "training", by: "Ada",
  created_at: "2026-11-21T12:00:00Z", started_at: null, finished_at: null, epoch: 2, step: 30, of_steps: 120, eta_s: 240, seconds: 80,
  evaluated: 0, to_evaluate: 0, parent: BASE, candidate: null, opponent: null, verdict: null, stop_wanted: false,
  error_code: "", error_message: "",
};
const SETTINGS: LearningSettings = {
  schedule: "off", every_masks: 100, window_from: 22, window_until: 6, budget_minutes: 120, trainable: "decoder", parent: "active",
  epochs: 4, learning_rate: 0.0001, automatic: false, confidence: 0.95, tolerance: 0.02, held_out_share: 0.25,
};
const LEARNING: Schemas["LearningOut"] = {
  settings: SETTINGS, train: { subjects: 3, masks: 30 }, held_out: { subjects: 1, masks: 9 }, unassigned_subjects: 1, new_masks: 7,
  refusal: null, due: "Runs begin by hand only.", fallen: [],
};
const ALL: Schemas["LabelJudgement"] = {
  label: "all", masks: 9, subjects: 3, opponent_dice: 0.8, candidate_dice: 0.85, difference: 0.05, low: 0.01, high: 0.09,
  opponent_noc: { 85: 3.25, 90: 6 }, candidate_noc: { 85: 2, 90: 4.5 },
};
const LONE: Schemas["LabelJudgement"] = { ...ALL, label: "Liver", subjects: 1, low: null, high: null };
const JUDGEMENT: Schemas["Judgement"] = { sentence: "It gains 0.050 Dice.", confidence: 0.95, tolerance: 0.02, labels: [ALL, LONE] };
const COMPARISON: Schemas["ComparisonOut"] = {
  id: "c", first: BASE, second: MADE, state: "done", done: 9, of: 9, created_at: "2026-11-22T12:00:00Z", judgement: JUDGEMENT, error_message: "",
};
const mask = (...counts: number[]): RunLengths => ({ height: 2, width: 2, counts });
const COMPARED: Schemas["ComparedMask"] = {
  slice_id: "s", series_id: "e", index: 3, task_id: "t", picture: "/dicomweb/picture", label: "Liver", color: "#aa0000", subject: "S-AAAAAAAAAAAA",
  accepted: mask(1, 1, 2), first: mask(0, 4), second: mask(4), first_dice: 0.4, second_dice: 0,
};

interface Answers {
  models?: ProjectModel[];
  promotions?: Schemas["PromotionOut"][];
  runs?: Run[];
  learning?: Partial<Schemas["LearningOut"]>;
  parts?: Schemas["SubjectPartOut"][];
  periods?: Schemas["Period"][];
  drift?: Schemas["DriftLine"][];
  comparisons?: Schemas["ComparisonOut"][];
  comparison?: Schemas["ComparisonOut"];
  masks?: Schemas["ComparedMask"][];
  address?: string;
  actions?: Schemas["Action"][];
}

/** The tab as it is when the server has answered so. */
function tab({ models = [], promotions = [], runs = [], learning, parts = [], periods = [], drift = [], comparisons = [], comparison, masks = [], address = "/", actions = ["learn"] }: Answers): string {
  const queryClient = new QueryClient();
  queryClient.setQueryData(queries.projectModels("p").queryKey, models);
  queryClient.setQueryData(queries.promotions("p").queryKey, promotions);
  queryClient.setQueryData(queries.runs("p").queryKey, runs);
  queryClient.setQueryData(queries.learning("p").queryKey, { ...LEARNING, ...learning });
  queryClient.setQueryData(queries.parts("p").queryKey, parts);
  queryClient.setQueryData(queries.helping("p").queryKey, periods);
  queryClient.setQueryData(queries.drift("p").queryKey, drift);
  queryClient.setQueryData(queries.comparisons("p").queryKey, comparisons);
  if (comparison) queryClient.setQueryData(queries.comparison("p", "c").queryKey, comparison);
  queryClient.setQueryData(queries.comparedMasks("p", "c").queryKey, masks);
  return renderToStaticMarkup(
    <MantineProvider>
      <QueryClientProvider client={queryClient}>
        <MemoryRouter initialEntries={[address]}>
          <ModelTab project={{ id: "p", actions } as Project} />
        </MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );
}

const count = (text: string, part: string) => text.split(part).length - 1;

describe("the tab of the model", () => {
  test("without anything says what will be there", () => {
    const html = tab({});
    for (const title of ["No models yet", "No runs yet", "Nothing to measure yet", "No weeks to compare yet", "No subjects yet"]) {
      expect(html).toContain(title);
    }
  });

  test("begins with what has got worse", () => {
    const html = tab({ learning: { fallen: ["Liver: It falls: first proposals reach 0.60 Dice."] }, models: [BASE] });
    expect(html.indexOf("reach 0.60 Dice")).toBeLessThan(html.indexOf("SAM-Med2D"));
  });

  test("shows the newest model first, with what it was made from", () => {
    const html = tab({ models: [BASE, MADE] });
    expect(count(html, 'data-testid="project-model"')).toBe(2);
    expect(html.indexOf("Liver, run 1")).toBeLessThan(html.indexOf("answers now"));
    for (const part of ["from SAM-Med2D", "Dice 0.910", ">Better<"]) expect(html).toContain(part);
    expect(count(html, "Let it answer")).toBe(1);
    expect(html).toContain(`/api/projects/p/models/${MADE.digest}/file`);
  });

  test("lets only those decide who may", () => {
    const html = tab({ models: [BASE, MADE], actions: ["view"], parts: [{ pseudonym: "S-AAAAAAAAAAAA", part: null, masks: 1 }] });
    for (const part of ["Let it answer", "Roll back", "Train now", "Download", "<form", "Hold them out"]) expect(html).not.toContain(part);
    expect(html).toContain("Runs begin by hand only");
  });

  test("shows how far a model on its way is, and does not offer it again", () => {
    const promotion: Schemas["PromotionOut"] = {
      id: "x", change: "promote", model: MADE, state: "preparing", by: "Ada", created_at: "2026-11-22T12:00:00Z", finished_at: null,
      prepared: 3, total: 12,
    };
    const html = tab({ models: [BASE, MADE], promotions: [promotion] });
    expect(html).toContain("3 of 12 slices");
    expect(html).not.toContain("Let it answer");
  });

  test("shows what a run is at", () => {
    const html = tab({ runs: [RUN], learning: { refusal: "A run of this project is under way: wait for it, or stop it." } });
    for (const part of ["Trains: epoch 2, step 30 of 120", "about 4 min left", "is under way"]) expect(html).toContain(part);
  });

  test("offers a part only to subjects without one", () => {
    const html = tab({
      parts: [{ pseudonym: "S-A", part: "train", masks: 3 }, { pseudonym: "S-B", part: "held_out", masks: 2 }, { pseudonym: "S-C", part: null, masks: 1 }],
    });
    expect(count(html, "Choose S-")).toBe(1);
    for (const part of ["Choose S-C", "learnt from", "held out", "none yet"]) expect(html).toContain(part);
  });

  test("says what a mask cost under each model", () => {
    const period: Schemas["Period"] = {
      model: BASE, since: "2026-11-20T12:00:00Z", until: null, masks: 4, clicks: 2.5, seconds: null, first_dice: 0.75, hand_drawn: 0.1,
    };
    const html = tab({ periods: [period] });
    for (const part of ["period-row", ">2.5<", ">0.750<", ">10 %<", ">–<"]) expect(html).toContain(part);
  });

  test("shows what falls first, with its sentence", () => {
    const line: Schemas["DriftLine"] = { by: "label", name: "Liver", points: [{ week: "2026-11-16", masks: 12, dice: 0.9 }], falls: false, sentence: "12 masks." };
    const falling = { ...line, name: "Spleen", falls: true, sentence: "It falls: by much." };
    expect(fallingFirst([line, falling]).map(({ name }) => name)).toEqual(["Spleen", "Liver"]);
    const html = tab({ drift: [line, falling] });
    expect(html.indexOf("Spleen")).toBeLessThan(html.indexOf("Liver"));
    expect(html).toContain("It falls: by much.");
    expect(html).not.toContain("NaN");
  });
});

describe("a comparison", () => {
  const address = "/?comparison=c";

  test("under way says how far it is", () => {
    expect(tab({ address, comparison: { ...COMPARISON, state: "running", done: 4, judgement: null } })).toContain("4 of 9 masks");
    expect(tab({ address, comparison: { ...COMPARISON, state: "pending", done: 0, of: 0, judgement: null } })).toContain("Waits for its turn.");
  });

  test("that failed says why", () => {
    expect(tab({ address, comparison: { ...COMPARISON, state: "failed", error_message: "The worker is away." } })).toContain("The worker is away.");
  });

  test("shows its judgement and the masks that differ most", () => {
    const html = tab({ address, comparison: COMPARISON, masks: [COMPARED] });
    expect(count(html, 'data-testid="judgement-row"')).toBe(2);
    for (const part of ["It gains 0.050 Dice.", "All labels", "+0.050", "3.3 → 2.0", 'src="/dicomweb/picture"', 'href="/tasks/t?slice=3"', 'viewBox="0 0 2 2"']) {
      expect(html).toContain(part);
    }
    expect(count(html, "non-scaling-stroke")).toBe(3);
  });

  test("is found again among the earlier ones, but for the one that is shown", () => {
    const earlier = { ...COMPARISON, id: "d", state: "failed" as const };
    const html = tab({ address, comparison: COMPARISON, comparisons: [COMPARISON, earlier] });
    expect(count(html, "(failed)")).toBe(1);
    expect(tab({ comparisons: [COMPARISON] })).toContain("Liver, run 1 against SAM-Med2D");
    expect(tab({})).not.toContain('data-testid="comparisons"');
  });

  test("is of what answers and the newest of the others", () => {
    expect(pairToCompare([BASE, MADE])).toEqual({ first: BASE.digest, second: MADE.digest });
    expect(pairToCompare([BASE])).toEqual({ first: BASE.digest, second: null });
    expect(pairToCompare([])).toEqual({ first: null, second: null });
  });

  test("draws outlines along the borders of pixels", () => {
    expect(pathOf(mask(4))).toBe("");
    expect(pathOf(mask(0, 1, 3)).match(/M/g)).toHaveLength(4);
  });
});

describe("a judgement", () => {
  test.each([
    [0.01, 0.09, "better", "+0.010 to +0.090"],
    [-0.09, -0.01, "worse", "−0.090 to −0.010"],
    [-0.01, 0.01, "open", "−0.010 to +0.010"],
    [null, null, "open", "too few for an interval"],
  ] as const)("between %d and %d is %s", (low, high, side, words) => {
    expect(sideOf({ low, high })).toBe(side);
    expect(intervalInWords({ low, high })).toBe(words);
  });

  test("has one scale for all labels, with room where nothing differs", () => {
    expect(spanOf([ALL, { ...ALL, low: -0.2 }])).toBe(0.2);
    expect(spanOf([LONE])).toBe(0.05);
    expect(spanOf([])).toBe(0.02);
  });

  test("says differences with their sign, and missing clicks as such", () => {
    expect([0.0001, -0.0001, 0.5, -0.5].map(differenceInWords)).toEqual(["0.000", "0.000", "+0.500", "−0.500"]);
    expect(clicksInWords({ ...ALL, opponent_noc: {} }, "90")).toBe("– → 4.5");
  });
});

describe("the timeline", () => {
  test("is newest first and leaves what it is given as it is", () => {
    const given = [BASE, MADE];
    expect(timelineOf(given).map(({ name }) => name)).toEqual(["Liver, run 1", "SAM-Med2D"]);
    expect(given[0]).toBe(BASE);
  });

  test("names a parent that is not there by its digest", () => {
    expect([lineageOf(BASE, [BASE]), lineageOf(MADE, [BASE]), lineageOf(MADE, [])]).toEqual([null, "from SAM-Med2D", "from aaaaaaaaaaaa"]);
  });

  test.each<[Verdict | null, string | null, string]>([
    ["better", "r", "promote"], ["not_better", "r", "pin"], ["insufficient", "r", "pin"], ["leaked", "r", "pin"], [null, "r", "pin"],
    [null, null, "pin"],
  ])("takes a model that is %s, of run %s, by %s", (verdict, run_id, change) => {
    expect(changeTo({ verdict, run_id })).toBe(change);
  });

  test.each<[Verdict, string]>([
    ["better", ">Better<"], ["not_better", ">Not better<"], ["insufficient", ">Not enough held-out data<"], ["leaked", ">Leaked<"],
  ])("says %s as %s", (verdict, words) => {
    expect(tab({ models: [BASE, { ...MADE, verdict }] })).toContain(words);
  });

  test("marks what a model is, and whom it has learnt from", () => {
    const words = (model: Partial<ProjectModel>) => marksOf({ ...MADE, ...model }).map(({ text }) => text);
    expect(words({})).toEqual([]);
    expect(words({ is_active: true, is_default: true })).toEqual(["answers now", "default"]);
    expect(words({ is_roll_back: true, trained: false, trained_on_erased: true })).toEqual([
      "roll-back target", "random weights", "has learnt from somebody erased",
    ]);
  });

  test("knows when a model answered last, and what is being prepared", () => {
    const [old, young] = ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"].map((since) => ({ since, until: null, by: null }));
    expect(lastTimeOf({ answered: [young, old].flatMap((time) => time ?? []) })).toEqual(young);
    expect(lastTimeOf({ answered: [] })).toBeUndefined();
    expect(underPreparation([{ state: "done" }, { state: "preparing" }] as Schemas["PromotionOut"][])).toEqual({ state: "preparing" });
    expect(underPreparation([{ state: "replaced" }] as Schemas["PromotionOut"][])).toBeUndefined();
  });
});

describe("a run", () => {
  test.each<[Partial<Run>, string, number]>([
    [{}, "Trains: epoch 2, step 30 of 120", 25],
    [{ of_steps: 0, step: 0, epoch: 0 }, "Trains: epoch 0, step 0 of …", 0],
    [{ stage: "evaluating", evaluated: 5, to_evaluate: 10 }, "Is judged: 5 of 10 held-out masks", 50],
    [{ stop_wanted: true }, "Is being stopped", 25],
    [{ state: "pending", step: 0 }, "Waits for its turn", 0],
    [{ state: "done" }, "Done", 25],
    [{ state: "failed", error_code: "cancelled" }, "Stopped", 25],
    [{ state: "failed", error_code: "internal" }, "Failed", 25],
  ])("that is %j says %s", (change, words, percent) => {
    expect(stageInWords({ ...RUN, ...change })).toBe(words);
    expect(percentOf({ ...RUN, ...change })).toBe(percent);
  });

  test("says how long it takes, or took", () => {
    expect(timeInWords(RUN)).toBe("about 4 min left");
    expect(timeInWords({ ...RUN, eta_s: null })).toBe("");
    expect(timeInWords({ ...RUN, state: "done" })).toBe("took 1 min");
    expect([0, 59, 60, 3600, 7800].map(durationInWords)).toEqual(["1 s", "59 s", "1 min", "1 h", "2 h 10 min"]);
  });

  test("has a curve of its losses and one of its Dice", () => {
    const run = { curve: [[1, 0.9, null], [2, 0.5, 0.7]] };
    expect(curveOf(run, "loss")).toEqual([{ x: 1, y: 0.9 }, { x: 2, y: 0.5 }]);
    expect(curveOf(run, "dice")).toEqual([{ x: 1, y: null }, { x: 2, y: 0.7 }]);
  });
});

describe("the settings", () => {
  test.each([0.5, 0.57, 0.95, 0.99, 0.999])("come back from the form as they were, also a share of %d", (share) => {
    const settings = { ...SETTINGS, confidence: share, held_out_share: share };
    const back = settingsOf(formOf(settings));
    expect(back).toEqual(settings);
    expect(back !== null && areSame(back, settings)).toBe(true);
  });

  test("are read as they are typed", () => {
    expect(settingsOf({ ...formOf(SETTINGS), epochs: "8", confidence_percent: "90", schedule: "nightly" })).toEqual({
      ...SETTINGS, epochs: 8, confidence: 0.9, schedule: "nightly",
    });
  });

  test.each([
    { epochs: "" }, { epochs: 0 }, { epochs: 1.5 }, { window_from: 24 }, { window_until: -1 }, { budget_minutes: 10_081 }, { every_masks: 0 },
    { learning_rate: 0 }, { learning_rate: 0.2 }, { confidence_percent: 49 }, { confidence_percent: 100 }, { tolerance: 1.1 },
    { held_out_percent: 0 }, { held_out_percent: 100 }, { tolerance: "-" },
  ])("are not taken with %j", (change) => {
    expect(settingsOf({ ...formOf(SETTINGS), ...change })).toBeNull();
  });

  test("are a sentence for those who do not decide them", () => {
    expect(settingsInWords(SETTINGS)).toBe("Runs begin by hand only. A lead decides whether a better model answers.");
    expect(settingsInWords({ ...SETTINGS, schedule: "masks", automatic: true })).toBe(
      "A run begins after every 100 newly accepted masks, between 22:00 and 06:00 UTC. A model that is better with 95 % confidence answers by itself.",
    );
  });
});

test("a bar is between nothing and full", () => {
  expect([shareOf(1, 4), shareOf(5, 4), shareOf(1, 0)]).toEqual([0.25, 1, 0]);
});

test("every notice of learning says what has become stale", () => {
  for (const what of ["learning", "run", "promotion", "comparison", "ranking"]) expect(STALE[what]).not.toHaveLength(0);
  const keys = [queries.runs("p"), queries.projectModels("p"), queries.learning("p")].map(({ queryKey }) => queryKey[2]);
  expect(STALE.run).toEqual(expect.arrayContaining(keys));
  expect(STALE.promotion).toEqual(expect.arrayContaining([queries.promotions("p"), queries.projectModels("p"), queries.model("p")].map(({ queryKey }) => queryKey[2])));
  expect(STALE.comparison).toEqual([queries.comparison("p", "c").queryKey[2]]);
});
