import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { MemoryRouter } from "react-router";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { queries } from "../api/queries";
import { Secret } from "./MakeTokenDialog";
import { TokensPage } from "./TokensPage";
import { DEFAULT_LIFETIME, LIFETIMES, daysOf, examples, isExpired, reachInWords, type Token } from "./tokenWords";

const LIVERS = { id: "22222222-2222-4222-8222-222222222222", name: "Livers", role: "lead", members: 1, labels: 1 } as const;
const TOKEN: Token = {
  id: "11111111-1111-4111-8111-111111111111",
  name: "gateway",
  project_id: null,
  read_only: false,
  created_at: "2026-11-23T12:00:00Z",
  expires_at: null,
  last_used_at: null,
};

beforeEach(() => {
  vi.stubGlobal("window", { location: { origin: "https://delineate.example" } });
});

/** The page as it is when the server has answered so. */
function page(tokens: Token[]): string {
  const queryClient = new QueryClient();
  queryClient.setQueryData(queries.tokens().queryKey, tokens);
  queryClient.setQueryData(queries.projects().queryKey, [LIVERS]);
  return renderToStaticMarkup(
    <MantineProvider>
      <QueryClientProvider client={queryClient}>
        <MemoryRouter><TokensPage /></MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );
}

const count = (text: string, part: string) => text.split(part).length - 1;

describe("the page of tokens", () => {
  test("without any says what one is for, with commands to try", () => {
    const html = page([]);
    expect(html).toContain("No API tokens yet");
    expect(count(html, "Make a token")).toBe(2);
    expect(html).toContain("https://delineate.example/api/projects/$PROJECT/uploads");
    expect(html).toContain("https://delineate.example/dicomweb/$PROJECT/");
    expect(html).not.toContain("<table");
  });

  test("shows each with its reach, its use and its end", () => {
    const narrow = { ...TOKEN, id: "3", name: "slicer", project_id: LIVERS.id, read_only: true, expires_at: "2000-01-01T00:00:00Z" };
    const html = page([TOKEN, narrow]);
    expect(count(html, "token-row")).toBe(2);
    for (const part of ["gateway", "all your projects", ">never<", "when it is revoked", "Livers, reading only", ">expired<"]) {
      expect(html).toContain(part);
    }
    expect(html).toContain('aria-label="Revoke slicer"');
  });

  test("shows a new secret in a field, for copying by hand where the browser has no clipboard", () => {
    const html = renderToStaticMarkup(<MantineProvider><Secret secret="dlt_abc" onDone={() => undefined} /></MantineProvider>);
    expect(html).toContain('value="dlt_abc"');
    expect(html).toContain("shown only now");
  });
});

describe("a token", () => {
  test("of a project that one has left reaches nothing that one knows", () => {
    expect(reachInWords({ ...TOKEN, project_id: "gone" }, [LIVERS])).toBe("a project that you are no member of");
  });

  test.each([
    [null, false],
    ["2026-11-23T11:59:59Z", true],
    ["2026-11-23T12:00:00Z", true],
    ["2026-11-23T12:00:01Z", false],
  ])("that expires %s is expired: %s", (expires_at, expired) => {
    expect(isExpired({ ...TOKEN, expires_at }, new Date("2026-11-23T12:00:00Z"))).toBe(expired);
  });

  test("lasts 90 days unless one chooses otherwise, and for ever only on demand", () => {
    expect(daysOf(DEFAULT_LIFETIME)).toBe(90);
    expect(LIFETIMES.map(({ value }) => daysOf(value))).toEqual([30, 90, 365, null]);
  });

  test("is never part of an example's address", () => {
    for (const { code } of examples("https://x.example")) expect(code).not.toMatch(/https:\S*TOKEN/);
  });
});
