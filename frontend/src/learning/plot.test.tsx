import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, test } from "vitest";
import { LinePlot } from "./LinePlot";
import { axisBetween, axisOf, pathThrough, placeOf, tickInWords } from "./plot";

describe("an axis", () => {
  test.each([
    [[0, 1], 0, 1, [0, 0.5, 1]],
    [[0.1, 0.73], 0, 0.8, [0, 0.2, 0.4, 0.6, 0.8]],
    [[3, 397], 0, 400, [0, 100, 200, 300, 400]],
    [[-0.02, 0.05], -0.02, 0.06, [-0.02, 0, 0.02, 0.04, 0.06]],
    [[5], 2, 8, [2, 4, 6, 8]],
    [[0], -0.5, 0.5, [-0.5, 0, 0.5]],
    [[], 0, 1, [0, 0.5, 1]],
    [[NaN, 0, 1, Infinity], 0, 1, [0, 0.5, 1]],
  ])("of %j goes from %d to %d", (values, from, to, ticks) => {
    expect(axisOf(values)).toEqual({ from, to, ticks });
  });

  test("places its ends at the ends, also from the bottom up", () => {
    const axis = axisBetween(0, 1);
    expect([0, 0.25, 1].map((value) => placeOf(value, axis, [40, 240]))).toEqual([40, 90, 240]);
    expect([0, 1].map((value) => placeOf(value, axis, [180, 10]))).toEqual([180, 10]);
  });

  test("says its ticks shortly", () => {
    expect([0, 0.1 + 0.2, 2000, 20_000, -0.02].map(tickInWords)).toEqual(["0", "0.3", "2000", "20k", "-0.02"]);
  });
});

describe("a line", () => {
  const asIs = (x: number, y: number) => [x, y] as const;

  test("breaks where there is no value, and shows a lone one as a dot", () => {
    const points = [{ x: 0, y: 1 }, { x: 1, y: 2 }, { x: 2, y: null }, { x: 3, y: 4 }, { x: 4, y: null }];
    expect(pathThrough(points, asIs)).toBe("M0.0 1.0L1.0 2.0M3.0 4.0h0");
    expect(pathThrough([], asIs)).toBe("");
  });

  test("stands on axes that say what they are of", () => {
    const html = renderToStaticMarkup(
      <LinePlot title="Loss by step" xLabel="step" yLabel="loss" points={[{ x: 0, y: 1 }, { x: 100, y: 0.2 }]} />,
    );
    for (const part of [">Loss by step<", ">step<", ">loss<", ">0.2<", ">100<", 'role="img"']) expect(html).toContain(part);
    expect(html).not.toContain("NaN");
  });

  test("without points is an empty plot", () => {
    expect(renderToStaticMarkup(<LinePlot title="" xLabel="" yLabel="" points={[]} />)).not.toContain("NaN");
  });
});
