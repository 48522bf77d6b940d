import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { MemoryRouter } from "react-router";
import { describe, expect, test } from "vitest";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { ModelsPage } from "./ModelsPage";
import { isUnderWay, nameOfFile, outcomeOf, shortDigest, type ModelUpload } from "./modelWords";

type Model = Schemas["ModelDetails"];

const MODEL: Model = {
  digest: "ab".repeat(32),
  name: "SAM-Med2D",
  variant: "vit_b",
  trained: true,
  image_size: 256,
  adapters: true,
  preparation: 1,
  origin: "a SAM of vit_b at 256 px with adapters",
  parent: "",
  metrics: {},
  is_default: true,
  created_at: "2026-11-23T12:00:00Z",
};
const UPLOAD: ModelUpload = {
  id: "11111111-1111-4111-8111-111111111111",
  name: "sam-med2d_b",
  size_bytes: 18,
  state: "pending",
  model_id: null,
  was_known: false,
  created_at: "2026-11-23T12:00:00Z",
  finished_at: null,
  error_code: "",
  error_message: "",
};

/** The page as it is when the server has answered so. */
function page(models: Model[], uploads: ModelUpload[] = []): string {
  const queryClient = new QueryClient();
  queryClient.setQueryData(queries.models().queryKey, models);
  queryClient.setQueryData(queries.modelUploads().queryKey, uploads);
  return renderToStaticMarkup(
    <MantineProvider>
      <QueryClientProvider client={queryClient}>
        <MemoryRouter>
          <ModelsPage />
        </MemoryRouter>
      </QueryClientProvider>
    </MantineProvider>,
  );
}

const count = (text: string, part: string) => text.split(part).length - 1;

describe("the page of models", () => {
  test("without any says what one is and how to add it", () => {
    const html = page([]);
    expect(html).toContain("No models yet");
    expect(count(html, "Add a model")).toBe(2);
    expect(html).not.toContain("<table");
  });

  test("shows each with what it is, and offers what is not the default yet", () => {
    const other = { ...MODEL, digest: "cd".repeat(32), name: "Untrained", trained: false, adapters: false, is_default: false };
    const html = page([MODEL, other]);
    expect(count(html, "model-row")).toBe(2);
    for (const part of ["SAM-Med2D", "vit_b", "256 px", MODEL.origin, "abababababab", "random weights"]) {
      expect(html).toContain(part);
    }
    expect(count(html, ">default<")).toBe(1);
    expect(count(html, "Make default")).toBe(1);
  });

  test("says why a file was not added", () => {
    const html = page([MODEL], [{ ...UPLOAD, state: "failed", error_code: "checkpoint_refused", error_message: "The file is empty." }]);
    expect(html).toContain("sam-med2d_b was not added");
    expect(html).toContain("The file is empty.");
  });

  test("speaks of the last three uploads only", () => {
    const uploads = ["fourth", "third", "second", "first"].map((name, index) => ({ ...UPLOAD, id: `${index}`, name }));
    const html = page([MODEL], uploads);
    expect(count(html, "model-upload")).toBe(3);
    expect(html).not.toContain("first is being read");
  });
});

describe("an upload", () => {
  test.each([
    ["pending", false, "gray", /is being read$/, true],
    ["running", false, "gray", /is being read$/, true],
    ["done", false, "teal", /was added$/, false],
    ["done", true, "teal", /was here already$/, false],
    ["failed", false, "red", /was not added$/, false],
  ] as const)("that is %s (known: %s) is %s", (state, was_known, color, title, underWay) => {
    const upload = { ...UPLOAD, state, was_known, error_message: "Why." };
    expect(outcomeOf(upload)).toMatchObject({ color, title: expect.stringMatching(title) as string });
    expect(outcomeOf(upload).message).toMatch(/\.$/);
    expect(isUnderWay(upload)).toBe(underWay);
  });

  test("is called as its file, without the ending", () => {
    expect(nameOfFile("sam-med2d_b.pth")).toBe("sam-med2d_b");
    expect(nameOfFile("v1.2.safetensors")).toBe("v1.2");
    expect(nameOfFile("x".repeat(200))).toHaveLength(120);
  });

  test("is told apart by the beginning of its model's digest", () => {
    expect(shortDigest(MODEL.digest)).toBe("abababababab");
  });
});
