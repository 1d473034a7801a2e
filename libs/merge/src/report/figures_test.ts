import { assertAlmostEquals, assertEquals } from "@std/assert";
import { type DeltaFigures, qualityOf, similarity } from "./figures.ts";

/** Figures of explicit vectors: merged m, sources x and y with weights 1 and −2. */
function figures(m: number[], x: number[], y: number[], bestSquares: number | null): DeltaFigures {
  const dot = (u: number[], v: number[]) => u.reduce((sum, value, index) => sum + value * v[index]!, 0);
  const s = x.map((value, index) => value - 2 * y[index]!);
  return {
    sources: [{ adapter: 0, squares: dot(x, x), inner: dot(m, x) }, {
      adapter: 1,
      squares: dot(y, y),
      inner: dot(m, y),
    }],
    between: [[dot(x, x), dot(x, y)], [dot(y, x), dot(y, y)]],
    squares: dot(m, m),
    sumSquares: dot(s, s),
    sumInner: dot(m, s),
    bestSquares,
  };
}

Deno.test("qualityOf() takes several modules as one long vector", () => {
  const parts = [figures([1, 2], [3, 1], [0, 1], 4), figures([0, 5], [1, 1], [2, -1], 3)];
  const whole = figures([1, 2, 0, 5], [3, 1, 1, 1], [0, 1, 2, -1], 7);
  const [joined, expected] = [qualityOf(parts, ["x", "y"]), qualityOf([whole], ["x", "y"])];
  assertAlmostEquals(joined.cosine_to_sum, expected.cosine_to_sum, 1e-15);
  assertAlmostEquals(joined.best_loss!, expected.best_loss!, 1e-15);
  assertAlmostEquals(joined.cosine_to_sources.x!, 10 / Math.sqrt(30 * 12), 1e-15);
  assertAlmostEquals(joined.cosine_to_sources.y!, -3 / Math.sqrt(30 * 6), 1e-15);
  assertAlmostEquals(joined.norm_ratio, Math.sqrt(30 / whole.sumSquares), 1e-15);
});

Deno.test("qualityOf() is free of loss when the merge is a multiple of the sum, and says null for an unknown best", () => {
  const quality = qualityOf([figures([6, -2], [3, 1], [0, 1], null)], ["x", "y"]);
  assertAlmostEquals(quality.cosine_to_sum, 1, 1e-15);
  assertEquals([quality.loss < 1e-7, quality.best_loss], [true, null]);
});

Deno.test("qualityOf() gives zeros, not NaN, when nothing is left", () => {
  const { cosine_to_sum, norm_ratio, loss } = qualityOf([figures([0, 0], [0, 0], [0, 0], 0)], ["x", "y"]);
  assertEquals([cosine_to_sum, norm_ratio, loss], [0, 0, 1]);
});

Deno.test("similarity() is the cosine of two adapters over the modules that both have", () => {
  const parts = [figures([1, 2], [3, 1], [0, 1], 4), figures([0, 5], [1, 1], [2, -1], 3)];
  assertAlmostEquals(similarity(parts, 0, 1)!, 2 / Math.sqrt(12 * 6), 1e-15);
  const alone = { ...parts[1]!, sources: [parts[1]!.sources[0]!], between: [[2]] };
  assertAlmostEquals(similarity([parts[0]!, alone], 1, 0)!, 1 / Math.sqrt(10), 1e-15);
  assertEquals(similarity([alone], 0, 1), null);
});
