import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { tarOf } from "./tar";

/** Read by the server's own reader and by Python's in test_browser_tar.py. */
const GOLDEN = new URL("./golden.tar", import.meta.url);
const SOURCES = [
  { path: "a.dcm", file: new Blob(["one"]) },
  { path: "anna/empty", file: new Blob([]) },
  { path: `anna/${"long/".repeat(30)}x`, file: new Blob(["x".repeat(512)]) },
  { path: "Köln/中.dcm", file: new Blob(["y".repeat(513)]) },
  { path: `${"é".repeat(60)}.dcm`, file: new Blob(["z"]) },
];

describe("a tar of files", () => {
  test("is what the server reads", async () => {
    const { blob } = tarOf(SOURCES);
    expect(Buffer.from(await blob.arrayBuffer()).equals(readFileSync(GOLDEN))).toBe(true);
  });

  test("tells where each file ends", async () => {
    const { blob, ends } = tarOf(SOURCES);
    const bytes = new Uint8Array(await blob.arrayBuffer());
    expect(ends[0]).toBe(512 + 3);
    expect(new TextDecoder().decode(bytes.slice((ends[3] ?? 0) - 513, ends[3]))).toBe("y".repeat(513));
    expect(blob.size % 512).toBe(0);
  });

  test("reads no file", () => {
    const unreadable = new Blob(["x"]);
    unreadable.arrayBuffer = () => Promise.reject(new Error("read"));
    unreadable.stream = () => { throw new Error("read"); };
    expect(tarOf([{ path: "a", file: unreadable }]).blob.size).toBe(4 * 512);
  });

  test("of a length that adds a digit by being told is right", async () => {
    // Around 100 bytes: " path=…\n" with a length of two digits, or of three.
    for (let length = 85; length < 115; length += 1) {
      const text = await tarOf([{ path: "é".repeat(50) + "n".repeat(length - 50), file: new Blob([]) }]).blob.text();
      const record = /(\d+) path=[^\n]*\n/.exec(text);
      expect(Number(record?.[1])).toBe(Buffer.byteLength(record?.[0] ?? ""));
    }
  });
});
