import { assert, assertAlmostEquals } from "@std/assert";
import { learningRateAt } from "./schedule.ts";

Deno.test("learningRateAt() climbs through the warm-up, peaks at the full rate and falls along a cosine", () => {
  const settings = { steps: 110, learningRate: 2, warmUp: 10 };
  assertAlmostEquals(learningRateAt(1, settings), 0.2, 1e-15);
  assertAlmostEquals(learningRateAt(10, settings), 2, 1e-15);
  assertAlmostEquals(learningRateAt(11, settings), 2, 1e-15);
  assertAlmostEquals(learningRateAt(61, settings), 1, 1e-15);
  const last = learningRateAt(110, settings);
  assert(last > 0 && last < 0.01, `${last}`);
});

Deno.test("learningRateAt() needs no warm-up, and takes a single step at the full rate", () => {
  assertAlmostEquals(learningRateAt(1, { steps: 1, learningRate: 3, warmUp: 0 }), 3, 1e-15);
});
