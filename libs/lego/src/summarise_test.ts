import { assertAlmostEquals, assertEquals } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import { summariseLego } from "./summarise.ts";
import { denseDelta, denseSum, inner, randomAdapter } from "./test_support/dense_oracle.ts";
import { mergeHost } from "./test_support/run.ts";

Deno.test("summariseLego() equals the figures of all modules' deltas as one vector", async () => {
  const device = new CpuDevice();
  const [x, y] = [
    [1, 2].map((seed) => randomAdapter({ inputs: 9, outputs: 7, rank: 3, seed })),
    // The second module is missing from the first adapter.
    [3].map((seed) => randomAdapter({ inputs: 5, outputs: 11, rank: 3, seed })),
  ];
  const [first, second] = [
    await mergeHost(device, x!, { rank: 4 }),
    await mergeHost(device, y!, { rank: 2 }),
  ];
  const summary = summariseLego([
    { report: first.report, adapters: ["left", "right"] },
    { report: second.report, adapters: ["right"] },
  ]);
  const merged = Float64Array.from([...first.delta, ...second.delta]);
  const whole = (one: Float64Array, other: Float64Array) => Float64Array.from([...one, ...other]);
  const left = whole(denseDelta(x![0]!), new Float64Array(55));
  const right = whole(denseDelta(x![1]!), denseDelta(y![0]!));
  const sum = whole(denseSum(x!), denseSum(y!));
  const norm = (v: Float64Array) => Math.sqrt(inner(v, v));
  const cosine = (v: Float64Array) => inner(merged, v) / norm(merged) / norm(v);
  assertAlmostEquals(summary.cosineToSources["left"]!, cosine(left), 1e-12);
  assertAlmostEquals(summary.cosineToSources["right"]!, cosine(right), 1e-12);
  assertAlmostEquals(summary.cosineToSum, cosine(sum), 1e-12);
  assertAlmostEquals(summary.loss, Math.sqrt(1 - cosine(sum) ** 2), 1e-7);
  assertAlmostEquals(summary.normRatio, norm(merged) / ((norm(left) + norm(right)) / 2), 1e-12);
  assertEquals([summary.modules, summary.clusters], [2, 6]);
});

Deno.test("summariseLego() takes no modules at all", () => {
  assertEquals(summariseLego([]).bestLoss, 0);
  assertEquals(summariseLego([]).largestCluster, 0);
});
