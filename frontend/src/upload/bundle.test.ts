import { describe, expect, test } from "vitest";
import { bundleOf, filesWithin } from "./bundle";

function file(path: string, content = "x", lastModified = 1): File {
  const made = new File([content], path.split("/").at(-1) ?? path, { lastModified });
  if (path.includes("/")) Object.defineProperty(made, "webkitRelativePath", { value: path });
  return made;
}

describe("what is dropped at once", () => {
  test("is one stream, the same in whatever order it comes", async () => {
    const [one, other] = [bundleOf([file("f/b"), file("f/a")]), bundleOf([file("f/a"), file("f/b")])];
    expect(await one.blob.text()).toBe(await other.blob.text());
    expect(one.fingerprint).toBe(other.fingerprint);
    expect(one.names).toEqual(["f/a", "f/b"]);
  });

  test.each([
    ["name", [file("f/a"), file("f/c")]],
    ["size", [file("f/a"), file("f/b", "xx")]],
    ["date", [file("f/a"), file("f/b", "x", 2)]],
    ["number", [file("f/a")]],
  ])("is another upload with another %s", (_, files) => {
    expect(bundleOf(files).fingerprint).not.toBe(bundleOf([file("f/a"), file("f/b")]).fingerprint);
  });

  test("says nothing of names in its fingerprint", () => {
    expect(bundleOf([file("anna.dcm")]).fingerprint).toMatch(/^delineate-[0-9a-f]{28}$/);
  });

  test.each(["brain.nii.gz", "images.zip"])("goes as it is when it is the single file %s", (name) => {
    const only = file(name);
    expect(bundleOf([only]).blob).toBe(only);
  });

  test("keeps the folder of a single file", async () => {
    expect(await bundleOf([file("anna/1")]).blob.text()).toContain("anna/1");
  });

  test("takes the folders that the reader of a drop found", () => {
    const dropped = file("1.dcm");
    Object.defineProperty(dropped, "relativePath", { value: "/anna/1.dcm" });
    const loose = file("2.dcm");
    Object.defineProperty(loose, "relativePath", { value: "./2.dcm" });
    expect(bundleOf([dropped, loose]).names).toEqual(["2.dcm", "anna/1.dcm"]);
  });

  test("has archives last: how many numbers their files take is not known", () => {
    const { names, fileCount } = bundleOf([file("a.zip"), file("b.dcm"), file("c/d.tar.gz"), file("e.nii.gz")]);
    expect(names).toEqual(["b.dcm", "e.nii.gz"]);
    expect(fileCount).toBe(4);
  });

  test.each([[0, 0], [4, 0], [5, 1], [8, 1], [9, 3], [99, 3]])("with %i bytes has sent %i files", (bytes, files) => {
    expect(filesWithin([5, 9, 9], bytes)).toBe(files);
  });
});
