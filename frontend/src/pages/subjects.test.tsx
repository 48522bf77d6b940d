import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, test } from "vitest";
import { queries } from "../api/queries";
import type { Project } from "./ProjectPage";
import { SubjectsTab } from "./SubjectsTab";
import { holdingsOf, isLeaving, matching, type Subject } from "./subjectWords";

const ANNA: Subject = {
  id: 1,
  pseudonym: "S-AAAAAAAAAAAA",
  aliases: ["S-BBBBBBBBBBBB"],
  studies: 2,
  series: 3,
  slices: 80,
  accepted_masks: 1,
  added_at: "2026-11-23T12:00:00Z",
  erasure: null,
};
const OTTO: Subject = { ...ANNA, id: 2, pseudonym: "S-CCCCCCCCCCCC", aliases: [], studies: 0, series: 0, slices: 0, accepted_masks: 0, added_at: null };
const leaving = (state: "running" | "failed"): Subject => ({
  ...OTTO, erasure: { id: "11111111-1111-4111-8111-111111111111", state, studies_done: 1, studies_total: 4 },
});

/** The tab as it is when the server has answered so. */
function tab(subjects: Subject[]): string {
  const queryClient = new QueryClient();
  queryClient.setQueryData(queries.subjects("p").queryKey, subjects);
  return renderToStaticMarkup(
    <MantineProvider>
      <QueryClientProvider client={queryClient}>
        <SubjectsTab project={{ id: "p" } as Project} />
      </QueryClientProvider>
    </MantineProvider>,
  );
}

describe("the tab of subjects", () => {
  test("without any says what one is", () => {
    expect(tab([])).toContain("No subjects yet");
  });

  test("shows each with the pseudonyms that were merged into it", () => {
    const html = tab([ANNA, OTTO]);
    expect(html.split('data-testid="subject-row"').length).toBe(3);
    expect(html).toContain("S-BBBBBBBBBBBB");
    expect(html).toContain("Erase S-AAAAAAAAAAAA");
  });

  test("shows how far an erasure is, and offers no other", () => {
    const html = tab([leaving("running")]);
    expect(html).toContain("being erased, 1 of 4");
    expect(html).not.toContain("Erase S-CCCCCCCCCCCC");
  });

  test("offers one that has failed again", () => {
    expect(tab([leaving("failed")])).toContain("Erase S-CCCCCCCCCCCC");
  });
});

describe("subjects in words", () => {
  test("are found by any of their pseudonyms, in either case", () => {
    expect(matching([ANNA, OTTO], " s-b")).toEqual([ANNA]);
    expect(matching([ANNA, OTTO], "")).toEqual([ANNA, OTTO]);
    expect(matching([ANNA, OTTO], "X")).toEqual([]);
  });

  test("are leaving unless their erasure has failed", () => {
    expect([ANNA, leaving("running"), leaving("failed")].map(isLeaving)).toEqual([false, true, false]);
  });

  test("have their holdings added up", () => {
    expect(holdingsOf([ANNA, OTTO])).toBe("2 studies, 3 series, 80 slices, 1 accepted mask");
    expect(holdingsOf([{ ...ANNA, studies: 1 }, ANNA])).toBe("3 studies, 6 series, 160 slices, 2 accepted masks");
  });
});
