import { beforeEach, expect, test, vi } from "vitest";

function storage(limit = Infinity) {
  const items = new Map<string, string>();
  return {
    getItem: (key: string) => items.get(key) ?? null,
    removeItem: (key: string) => items.delete(key),
    setItem: (key: string, value: string) => {
      if (value.length > limit) throw new DOMException("full", "QuotaExceededError");
      items.set(key, value);
    },
  };
}

/** As after loading the page: what is in memory is gone. */
async function loaded() {
  vi.resetModules();
  return import("./names");
}

beforeEach(() => vi.stubGlobal("sessionStorage", storage()));

test("numbers have names in the tab that sent them, also when it is loaded again", async () => {
  const before = await loaded();
  before.rememberNames("one", ["a", "b"]);
  const after = await loaded();
  expect(after.nameOf("one", 2, 2)).toBe("b");
  expect(after.nameOf("one", 3, 3)).toBeUndefined();
  expect(after.nameOf("other", 1, 2)).toBeUndefined();
});

test("only the last upload has names, until somebody signs out", async () => {
  const names = await loaded();
  names.rememberNames("one", ["a", "b"]);
  names.rememberNames("two", ["c", "d"]);
  expect(names.nameOf("one", 1, 2)).toBeUndefined();
  expect(names.nameOf("two", 1, 2)).toBe("c");
  names.forgetNames();
  expect(names.nameOf("two", 1, 2)).toBeUndefined();
  expect((await loaded()).nameOf("two", 1, 2)).toBeUndefined();
});

test("a single file that holds several was an archive", async () => {
  const names = await loaded();
  names.rememberNames("one", ["download"]);
  expect(names.nameOf("one", 1, 1)).toBe("download");
  expect(names.nameOf("one", 1, 5)).toBeUndefined();
});

test("more names than the storage takes stay in memory", async () => {
  vi.stubGlobal("sessionStorage", storage(20));
  const names = await loaded();
  names.rememberNames("one", ["a".repeat(30), "b"]);
  expect(names.nameOf("one", 2, 2)).toBe("b");
  expect((await loaded()).nameOf("one", 2, 2)).toBeUndefined();
});
