import { assert, assertAlmostEquals, assertEquals, assertLess } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import { assertRelativelyClose, relativeError } from "@lora-loom/testing";
import {
  combine,
  denseDeltas,
  expertTraces,
  jacobiOracle,
  type Matrix,
  norm,
  sweepOracle,
  systemOf,
  times,
  trace,
  transpose,
  zeros,
} from "./test_support/oracle.ts";
import { assertDeltas, denseResult, mergeToy, type Method } from "./test_support/merge_toy.ts";
import { type HostTask, SMALL, toyTask, toyWeights } from "./test_support/toy_model.ts";

const toy = toyWeights(SMALL, 1);
const first = toyTask(toy, { name: "first", rank: 2, samples: 12, seed: 1 });
const second = toyTask(toy, { name: "second", rank: 1, samples: 9, seed: 2 });
const third = toyTask(toy, {
  name: "third",
  rank: 3,
  samples: 14,
  seed: 3,
  without: ["layers.0.k", "layers.1.o"],
});
const tasks = [first, second, third];
const modules = [...toy.modules.keys()];

for (const adaptiveWeights of ["full", "delta", "none"] as const) {
  Deno.test(`iteris() sweeps to the dense solution when adaptiveWeights is ${adaptiveWeights}`, async () => {
    const merged = await mergeToy(toy, tasks, { iteris: { alpha: 1e-3, adaptiveWeights } });
    await assertDeltas(merged, sweepOracle(toy, tasks, { alpha: 1e-3, lambda: adaptiveWeights }));
  });
}

Deno.test("iteris() agrees with the dense solution in every iteration of jacobi", async () => {
  for (const iterations of [1, 2, 3]) {
    const merged = await mergeToy(toy, tasks, { iteris: { alpha: 1e-4, schedule: "jacobi", iterations } });
    await assertDeltas(merged, jacobiOracle(toy, tasks, { alpha: 1e-4, lambda: "full" }, iterations), 1e-8);
  }
});

for (const schedule of ["sweep", "jacobi"] as const) {
  Deno.test(`iteris() returns the adapter when it is alone and the schedule is ${schedule}`, async () => {
    const merged = await mergeToy(toy, [third], { iteris: { schedule, iterations: 3 } });
    await assertDeltas(merged, denseDeltas(toy, third), 1e-10);
    assertLess(merged.report.meanErrors.merged, 1e-8);
  });

  Deno.test(`iteris() returns the adapter when it is merged with itself on other text by ${schedule}`, async () => {
    const twin: HostTask = { ...first, name: "twin", sequences: second.sequences };
    const merged = await mergeToy(toy, [first, twin], { iteris: { schedule, iterations: 4 } });
    await assertDeltas(merged, denseDeltas(toy, first), 1e-9);
  });
}

Deno.test("iteris() tends to the norm-weighted mean of the deltas when alpha grows", async () => {
  const merged = await mergeToy(toy, tasks, { iteris: { alpha: 1e10, schedule: "jacobi", iterations: 1 } });
  const result = await denseResult(merged);
  for (const { module, tasks: figures } of merged.report.sites) {
    const weights = figures.map(({ adaptiveWeight, gramNorm }) => adaptiveWeight * gramNorm);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let mean = zeros(result.get(module)!.length, result.get(module)![0]!.length);
    tasks.forEach((task, i) => {
      const delta = denseDeltas(toy, task).get(module);
      if (delta) mean = combine(mean, weights[i]! / total, delta);
    });
    assertRelativelyClose(result.get(module)!.flat(), mean.flat(), 1e-8, module);
  }
});

Deno.test("iteris() gives the sum of the adapters' ranks when no rank is asked for", async () => {
  const merged = await mergeToy(toy, tasks, { iteris: {} });
  assertEquals(merged.deltas.get("layers.0.q")!.a.shape, [6, SMALL.hidden]);
  assertEquals(merged.deltas.get("layers.0.q")!.b.shape, [SMALL.inner, 6]);
  assertEquals(merged.deltas.get("layers.0.k")!.a.shape[0], 3);
});

Deno.test("iteris() ends where the gradient of its objective is zero", async () => {
  const options = { alpha: 1e-3, lambda: "full" } as const;
  const merged = await denseResult(await mergeToy(toy, tasks, { iteris: { alpha: options.alpha } }));
  const traces = tasks.map(({ sequences }) => trace(toy, sequences, merged));
  for (const module of modules) {
    const { g, n } = systemOf(toy, module, tasks, expertTraces(toy, tasks), traces, options);
    const gradient = combine(times(merged.get(module)!, g), -1, n);
    assertLess(norm(gradient) / norm(n), 1e-8);
  }
});

Deno.test("iteris() by jacobi agrees with the sweep on the first j stages when it has run j times", async () => {
  const sweep = await denseResult(await mergeToy(toy, tasks, { iteris: {} }));
  const stages = [["layers.0.q", "layers.0.k"], ["layers.0.o"], ["layers.1.q", "layers.1.k"], ["layers.1.o"]];
  for (let iterations = 1; iterations <= stages.length; iterations++) {
    const jacobi = await denseResult(
      await mergeToy(toy, tasks, { iteris: { schedule: "jacobi", iterations } }),
    );
    const errorOf = (module: string) => relativeError(jacobi.get(module)!.flat(), sweep.get(module)!.flat());
    for (const module of stages.slice(0, iterations).flat()) assertLess(errorOf(module), 1e-8);
    for (const module of stages.slice(iterations).flat()) {
      assert(errorOf(module) > 1e-4, `${module} after ${iterations}`);
    }
  }
});

Deno.test("iteris() stops jacobi when nothing moves by more than the tolerance", async () => {
  const merged = await mergeToy(toy, tasks, {
    iteris: { schedule: "jacobi", iterations: 20, tolerance: 1e-6 },
  });
  assertEquals(merged.report.passes, 5);
  assertEquals(merged.report.changes.length, 4);
  assertLess(merged.report.changes.at(-1)!, 1e-6);
  await assertDeltas(merged, sweepOracle(toy, tasks, { alpha: 1e-4, lambda: "full" }), 1e-8);
});

Deno.test("iteris() gives the same deltas when tasks are permuted", async () => {
  const result = await denseResult(await mergeToy(toy, tasks, { iteris: {} }));
  await assertDeltas(await mergeToy(toy, [third, first, second], { iteris: {} }), result);
});

Deno.test("iteris() gives the same deltas when a task's text is repeated", async () => {
  const result = await denseResult(await mergeToy(toy, tasks, { iteris: {} }));
  const repeated = { ...second, sequences: [...second.sequences, ...second.sequences] };
  await assertDeltas(await mergeToy(toy, [first, repeated, third], { iteris: {} }), result);
});

Deno.test("iteris() gives the same deltas when the text is cut into other chunks or waits in files", async () => {
  const result = await denseResult(await mergeToy(toy, tasks, { iteris: {} }));
  for (const memory of [{ tokensPerChunk: 1 }, { tokensPerChunk: 1000 }, { hostBytes: 0 }]) {
    await assertDeltas(await mergeToy(toy, tasks, { iteris: {} }, { memory }), result);
  }
});

Deno.test("iteris() needs no more device memory when there are more samples", async () => {
  const peaks: number[] = [];
  for (const samples of [20, 200]) {
    const device = new CpuDevice();
    const many = [1, 2].map((seed) => toyTask(toy, { name: `task ${seed}`, rank: 2, samples, seed }));
    await mergeToy(toy, many, { iteris: {} }, { device, memory: { hostBytes: 0 } });
    peaks.push(device.memory.peakBytes);
  }
  assertLess(peaks[1]!, 1.1 * peaks[0]!);
});

Deno.test("iteris() weights tasks as the recipe says", async () => {
  const weighted = [{ ...first, weight: 2.5 }, { ...second, weight: 0.5 }, third];
  const merged = await mergeToy(toy, weighted, { iteris: { alpha: 1e-3 } });
  await assertDeltas(merged, sweepOracle(toy, weighted, { alpha: 1e-3, lambda: "full" }));
});

Deno.test("iteris() reports the adaptive weights, norms and output errors of every site", async () => {
  const options = { alpha: 1e-3, lambda: "full" } as const;
  const merged = await mergeToy(toy, tasks, { iteris: { alpha: options.alpha } });
  const deltas = await denseResult(merged);
  const experts = expertTraces(toy, tasks);
  const traces = tasks.map(({ sequences }) => trace(toy, sequences, deltas));
  assertEquals(merged.report.sites.map(({ module }) => module), modules);
  for (const { module, tasks: figures } of merged.report.sites) {
    const { lambdas } = systemOf(toy, module, tasks, experts, traces, options);
    const sum = sumOfDeltas(tasks, module);
    figures.forEach((figure, i) => {
      assertAlmostEquals(figure.adaptiveWeight, lambdas[i]!, 1e-9 * lambdas[i]!);
      const delta = denseDeltas(toy, tasks[i]!).get(module);
      assertEquals(figure.hasModule, delta !== undefined);
      if (!delta) return;
      const target = times(experts[i]!.inputs.get(module)!, transpose(delta));
      const inputs = traces[i]!.inputs.get(module)!;
      const errorOf = (w: Matrix, factor: number) =>
        norm(combine(target, -factor, times(inputs, transpose(w)))) / norm(target);
      assertAlmostEquals(figure.errors.merged, errorOf(deltas.get(module)!, 1), 1e-7);
      assertAlmostEquals(figure.errors.sum, errorOf(sum, 1), 1e-7);
      assertAlmostEquals(figure.errors.mean, errorOf(sum, 1 / 3), 1e-7);
    });
  }
});

function sumOfDeltas(all: readonly HostTask[], module: string): Matrix {
  return all.map((task) => denseDeltas(toy, task).get(module)).filter((delta) => delta !== undefined)
    .reduce((sum, delta) => combine(sum, 1, delta));
}

Deno.test("iteris() counts a missing module as no change, and reports it", async () => {
  const merged = await mergeToy(toy, tasks, { iteris: {} });
  assertEquals(merged.report.missing, [
    { task: "third", module: "layers.0.k" },
    { task: "third", module: "layers.1.o" },
  ]);
});

Deno.test("iteris() leaves a module alone that no adapter has", async () => {
  const without = ["layers.0.o"];
  const partial = [
    toyTask(toy, { name: "a", rank: 2, samples: 9, seed: 7, without }),
    toyTask(toy, { name: "b", rank: 2, samples: 9, seed: 8, without }),
  ];
  const merged = await mergeToy(toy, partial, { iteris: { alpha: 1e-3 } });
  assert(!merged.deltas.has("layers.0.o"));
  await assertDeltas(merged, sweepOracle(toy, partial, { alpha: 1e-3, lambda: "full" }));
});

Deno.test("iteris() uses the first samples when it is told how many", async () => {
  const merged = await mergeToy(toy, tasks, { iteris: { samples: 6, alpha: 1e-3 } });
  const fewer = tasks.map((task) => ({ ...task, sequences: task.sequences.slice(0, 6) }));
  await assertDeltas(merged, sweepOracle(toy, fewer, { alpha: 1e-3, lambda: "full" }));
  assertEquals(merged.report.tasks.map(({ samples }) => samples), [6, 6, 6]);
});

for (const method of [{ iteris: {} }, { plus: {} }] satisfies Method[]) {
  Deno.test(`${Object.keys(method)[0]} gives the same bytes when it is run again`, async () => {
    const [once, again] = [await mergeToy(toy, tasks, method), await mergeToy(toy, tasks, method)];
    assertEquals(await denseResult(once), await denseResult(again));
  });
}
