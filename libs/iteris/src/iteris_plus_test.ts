import { assertEquals, assertLess } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import {
  baseWeight,
  combine,
  denseDeltas,
  expertTraces,
  norm,
  solveRight,
  sweepOracle,
  times,
  tokenWeightsOf,
  trace,
  transpose,
  zeros,
} from "./test_support/oracle.ts";
import { assertDeltas, denseResult, mergeToy } from "./test_support/merge_toy.ts";
import { SMALL, toyTask, toyWeights } from "./test_support/toy_model.ts";

const toy = toyWeights(SMALL, 1);
const first = toyTask(toy, { name: "first", rank: 2, samples: 12, seed: 1 });
const tasks = [
  first,
  toyTask(toy, { name: "second", rank: 1, samples: 9, seed: 2 }),
  toyTask(toy, { name: "third", rank: 3, samples: 14, seed: 3, without: ["layers.0.k", "layers.1.o"] }),
];
/** Enough for any module of the toy model, so that nothing is truncated. */
const FULL_RANK = SMALL.hidden;

for (const [drift, stream] of [[true, false], [false, true], [true, true]] as const) {
  for (const tokenWeight of [1, 0.3]) {
    Deno.test(`iterisPlus() solves the dense problem when drift is ${drift}, stream ${stream}, ρ ${tokenWeight}`, async () => {
      const options = { alpha: 1e-3, drift, stream, tokenWeight };
      const merged = await mergeToy(toy, tasks, { plus: { ...options, rank: FULL_RANK } });
      await assertDeltas(merged, sweepOracle(toy, tasks, { ...options, lambda: "none" }), 1e-8);
    });
  }
}

Deno.test("iterisPlus() is iteris() without adaptive weights when drift and stream are off", async () => {
  const plus = await mergeToy(toy, tasks, { plus: { drift: false, stream: false, alpha: 1e-3 } });
  const published = await mergeToy(toy, tasks, { iteris: { adaptiveWeights: "none", alpha: 1e-3 } });
  await assertDeltas(plus, await denseResult(published), 1e-14);
});

Deno.test("iterisPlus() returns the adapter when it is alone", async () => {
  for (const task of tasks) {
    const merged = await mergeToy(toy, [task], { plus: {} });
    await assertDeltas(merged, denseDeltas(toy, task), 1e-8);
    assertLess(merged.report.meanErrors.merged, 1e-8);
  }
});

Deno.test("iterisPlus() returns the adapter when it is merged with itself on other text", async () => {
  const twin = { ...first, name: "twin", sequences: tasks[1]!.sequences };
  const merged = await mergeToy(toy, [first, twin], { plus: { rank: 2 } });
  await assertDeltas(merged, denseDeltas(toy, first), 1e-8);
});

Deno.test("iterisPlus() with drift solves for the whole weight W0 + W", async () => {
  const alpha = 1e-3;
  const merged = await denseResult(
    await mergeToy(toy, tasks, { plus: { stream: false, alpha, rank: FULL_RANK } }),
  );
  const experts = expertTraces(toy, tasks);
  const traces = tasks.map(({ sequences }) => trace(toy, sequences, merged));
  for (const [module, delta] of merged) {
    const w0 = baseWeight(toy, module);
    let numerator = zeros(w0.length, w0[0]!.length);
    let gram = zeros(w0[0]!.length, w0[0]!.length);
    tasks.forEach((task, i) => {
      const weights = tokenWeightsOf(task.sequences, 1);
      const inputs = traces[i]!.inputs.get(module)!;
      const weighted = inputs.map((row, t) => row.map((value) => value * weights[t]!));
      const own = times(transpose(inputs), weighted);
      const cross = times(transpose(experts[i]!.inputs.get(module)!), weighted);
      const ridge = zeros(own.length, own.length).map((row, j) =>
        row.map((_, k) => j === k ? alpha * norm(own) : 0)
      );
      const expertWeight = combine(
        w0,
        1,
        denseDeltas(toy, task).get(module) ?? zeros(w0.length, w0[0]!.length),
      );
      numerator = combine(numerator, 1, times(expertWeight, combine(cross, 1, ridge)));
      gram = combine(gram, 1, combine(own, 1, ridge));
    });
    const whole = solveRight(numerator, gram);
    assertRelativelyClose(combine(w0, 1, delta).flat(), whole.flat(), 1e-9, module);
  }
});

Deno.test("iterisPlus() keeps the sum of the adapters' ranks when no rank is asked for", async () => {
  const merged = await mergeToy(toy, tasks, { plus: {} });
  assertEquals(merged.deltas.get("layers.0.q")!.a.shape, [5, SMALL.hidden]);
  assertEquals(merged.deltas.get("layers.0.k")!.a.shape, [3, SMALL.hidden]);
  assertEquals(merged.report.sites[1]!.rank.solved, 5);
  assertEquals(merged.report.sites[1]!.rank.kept, 3);
});
