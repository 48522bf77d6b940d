import { describe, expect, it } from "vitest";
import { referencesInWords, seriesInWords, sizeInWords } from "./words";

const series = (changes: Partial<Parameters<typeof seriesInWords>[0]> = {}) => ({
  modality: "MR", number: 4, volume: 1, series_uid: "2.25.1", ...changes,
});

describe("a series in words", () => {
  it("is its modality and number", () => {
    expect(seriesInWords(series(), [series(), series({ series_uid: "2.25.2" })])).toBe("MR · series 4");
  });

  it("is its modality alone without a number", () => {
    expect(seriesInWords(series({ number: 0 }), [series({ number: 0 })])).toBe("MR");
  });

  it("is other where the images do not say", () => {
    expect(seriesInWords(series({ modality: "" }), [])).toBe("OT · series 4");
  });

  it("says which volume it is where its DICOM series holds several", () => {
    const second = series({ volume: 2 });
    expect(seriesInWords(second, [series(), second])).toBe("MR · series 4 · volume 2 of 2");
  });
});

describe("references in words", () => {
  it("are counted, and named by their modalities", () => {
    expect(referencesInWords([{ modality: "RTDOSE", count: 1 }, { modality: "SEG", count: 2 }])).toBe("3 references: RTDOSE, SEG");
  });

  it("may be one", () => {
    expect(referencesInWords([{ modality: "SEG", count: 1 }])).toBe("1 reference: SEG");
  });
});

describe("a size in words", () => {
  it.each([
    [0, "0 KB"], [1, "1 KB"], [39_206, "39 KB"], [1024 ** 2, "1.0 MB"], [5_306_368, "5.1 MB"], [3 * 1024 ** 3, "3.00 GB"],
  ])("of %i bytes is %s", (bytes, words) => {
    expect(sizeInWords(bytes)).toBe(words);
  });
});
