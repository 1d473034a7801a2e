/** iterisPlus() with output metrics, against dense solves and against itself without them. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import type { OutputMetrics } from "./output_metrics.ts";
import { testOnGpu } from "./test_support/devices.ts";
import { assertDeltas, denseResult, mergeToy } from "./test_support/merge_toy.ts";
import {
  combine,
  denseDeltas,
  expertTraces,
  fromFlat,
  type Matrix,
  systemOf,
  times,
  transpose,
  zeros,
} from "./test_support/oracle.ts";
import { SMALL, toyTask, toyWeights } from "./test_support/toy_model.ts";

const toy = toyWeights(SMALL, 1);
const tasks = [
  { ...toyTask(toy, { name: "first", rank: 2, samples: 12, seed: 1 }), weight: 0.7 },
  toyTask(toy, { name: "second", rank: 1, samples: 9, seed: 2 }),
  toyTask(toy, { name: "third", rank: 3, samples: 14, seed: 3, without: ["layers.0.k"] }),
];
const FULL_RANK = SMALL.hidden;
/** Their inputs do not depend on any solution, so they can be checked on their own. */
const FIRST = ["layers.0.q", "layers.0.k"];

function outputsOf(module: string): number {
  return module.endsWith(".o") ? SMALL.hidden : SMALL.inner;
}

/** A symmetric positive matrix of any trace, `[size, size]`. */
function randomMetric(size: number, seed: number): Matrix {
  const rows = fromFlat(gaussians(size * size, seed), size, size);
  return times(rows, transpose(rows)).map((row) => row.map((value) => 37 * value));
}

function seedOf(task: number, module: string): number {
  return 100 * task + [...module].reduce((sum, letter) => sum + letter.charCodeAt(0), 0);
}

/** Metrics from dense matrices, a block each. */
function metricsFrom(device: Device, dense: (task: number, module: string) => Matrix): OutputMetrics {
  return {
    blocks(task, module) {
      const matrix = dense(task, module);
      return Promise.resolve(
        device.upload(Float64Array.from(matrix.flat()), [matrix.length, matrix.length]),
      );
    },
  };
}

const identity = (size: number): Matrix =>
  zeros(size, size).map((row, i) => row.map((_, j) => i === j ? 1 : 0));

/** (1 − γ) F scaled to the trace of the identity, + γ I. */
function damped(f: Matrix, gamma: number): Matrix {
  const trace = f.reduce((sum, row, i) => sum + row[i]!, 0);
  return combine(
    f.map((row) => row.map((value) => (1 - gamma) * f.length / trace * value)),
    gamma,
    identity(f.length),
  );
}

const random = (task: number, module: string) => randomMetric(outputsOf(module), seedOf(task, module));
const EXACT = { alpha: 1e-3, rank: FULL_RANK, metricSteps: 500 };

Deno.test("iterisPlus() with identities for metrics gives the closed form, to its last bit and without a step", async () => {
  for (const rank of [FULL_RANK, 3]) {
    const device = new CpuDevice();
    const metrics = metricsFrom(device, (_, module) => identity(outputsOf(module)));
    const plain = await mergeToy(toy, tasks, { plus: { rank } }, { device });
    const merged = await mergeToy(toy, tasks, { plus: { rank } }, { device, metrics });
    assertEquals(await denseResult(merged), await denseResult(plain));
    assertEquals(merged.report.sites.map(({ metric }) => metric!.steps), plain.report.sites.map(() => 0));
  }
});

Deno.test("iterisPlus() with metrics that are all damped away gives the closed form", async () => {
  const device = new CpuDevice();
  const plain = await mergeToy(toy, tasks, { plus: { rank: 3 } }, { device });
  const merged = await mergeToy(toy, tasks, { plus: { rank: 3, metricDamping: 1 } }, {
    device,
    metrics: metricsFrom(device, random),
  });
  assertEquals(await denseResult(merged), await denseResult(plain));
});

Deno.test("iterisPlus() with one metric for all tasks solves for the same delta, and cuts it otherwise", async () => {
  const device = new CpuDevice();
  const metrics = metricsFrom(device, (_, module) => random(0, module));
  const same = await mergeToy(toy, tasks, { plus: { ...EXACT } }, { device, metrics });
  await assertDeltas(same, await denseResult(await mergeToy(toy, tasks, { plus: { ...EXACT } })), 1e-8);
  const cut = await denseResult(
    await mergeToy(toy, tasks, { plus: { ...EXACT, rank: 2 } }, { device, metrics }),
  );
  const plainCut = await denseResult(await mergeToy(toy, tasks, { plus: { ...EXACT, rank: 2 } }));
  assert(Math.abs(cut.get(FIRST[0]!)![0]![0]! - plainCut.get(FIRST[0]!)![0]![0]!) > 1e-3);
});

Deno.test("iterisPlus() with metrics solves Σ F̂_i W G_i = Σ F̂_i R_i", async () => {
  const device = new CpuDevice();
  const merged = await mergeToy(toy, tasks, { plus: { ...EXACT, metricDamping: 0.2 } }, {
    device,
    metrics: metricsFrom(device, random),
  });
  const found = await denseResult(merged);
  const experts = expertTraces(toy, tasks);
  for (const module of FIRST) {
    let left = zeros(outputsOf(module), SMALL.hidden), right = left;
    tasks.forEach((task, i) => {
      const { g, n } = systemOf(toy, module, [task], [experts[i]!], [experts[i]!], {
        alpha: 1e-3,
        lambda: "none",
        drift: true,
      });
      const f = damped(random(i, module), 0.2);
      left = combine(left, 1, times(f, times(found.get(module)!, g)));
      right = combine(right, 1, times(f, n));
    });
    assertRelativelyClose(left.flat(), right.flat(), 1e-8, module);
    const { metric } = merged.report.sites.find((site) => site.module === module)!;
    assert(metric!.steps > 0 && metric!.residual < 1e-9);
  }
});

Deno.test("iterisPlus() with metrics returns the adapter when it is alone", async () => {
  const device = new CpuDevice();
  const merged = await mergeToy(toy, [tasks[0]!], { plus: {} }, {
    device,
    metrics: metricsFrom(device, random),
  });
  await assertDeltas(merged, denseDeltas(toy, tasks[0]!), 1e-8);
});

Deno.test("iterisPlus() with metrics loses less in their norm than the cut without them does", async () => {
  const device = new CpuDevice();
  const metrics = metricsFrom(device, (_, module) => random(0, module));
  const whole = await denseResult(await mergeToy(toy, tasks, { plus: EXACT }));
  const cut = await denseResult(
    await mergeToy(toy, tasks, { plus: { ...EXACT, rank: 2 } }, { device, metrics }),
  );
  const plainCut = await denseResult(await mergeToy(toy, tasks, { plus: { ...EXACT, rank: 2 } }));
  const experts = expertTraces(toy, tasks);
  for (const module of FIRST) {
    const { g } = systemOf(toy, module, tasks, experts, experts, {
      alpha: 1e-3,
      lambda: "none",
      drift: true,
    });
    const f = damped(random(0, module), 0.1);
    const lost = (matrix: Matrix) => {
      const rest = combine(whole.get(module)!, -1, matrix);
      const image = times(times(f, rest), g);
      return rest.flat().reduce((sum, value, i) => sum + value * image.flat()[i]!, 0);
    };
    assertLess(lost(cut.get(module)!), 0.999 * lost(plainCut.get(module)!));
  }
});

/** Of five outputs two blocks, of seven three: the last is smaller than the others. */
const BLOCK = 3;

/** What lies on the diagonal of a matrix in blocks, zeros elsewhere. */
const diagonalBlocks = (matrix: Matrix): Matrix =>
  matrix.map((row, i) => row.map((value, j) => Math.floor(i / BLOCK) === Math.floor(j / BLOCK) ? value : 0));

/** Metrics of random blocks, as they are stored. */
function metricsInBlocks(device: Device): OutputMetrics {
  return {
    blocks(task, module) {
      const stored = random(task, module).map((row, i, { length }) => {
        const first = i - i % BLOCK;
        return Array.from({ length: BLOCK }, (_, j) => first + j < length ? row[first + j]! : 0);
      });
      return Promise.resolve(
        device.upload(Float64Array.from(stored.flat()), [stored.length, BLOCK]),
      );
    },
  };
}

Deno.test("iterisPlus() takes a metric in blocks for the matrix that they are the diagonal of", async () => {
  const device = new CpuDevice();
  const whole = metricsFrom(device, (task, module) => diagonalBlocks(random(task, module)));
  const options = { plus: { ...EXACT, rank: 3 } };
  const merged = await mergeToy(toy, tasks, options, { device, metrics: metricsInBlocks(device) });
  const expected = await mergeToy(toy, tasks, options, { device, metrics: whole });
  await assertDeltas(merged, await denseResult(expected), 1e-8);
});

testOnGpu(
  "iterisPlus() with metrics gives on a GPU what it gives on the CPU, also in blocks",
  async (gpu) => {
    const cpu = new CpuDevice();
    const whole = (device: Device) => metricsFrom(device, random);
    for (const metricsOn of [whole, metricsInBlocks]) {
      for (const hostSolverLimit of [0, 512]) {
        const options = { plus: { rank: FULL_RANK, alpha: 1e-3 } };
        const memory = { hostSolverLimit };
        const expected = await mergeToy(toy, tasks, options, { device: cpu, metrics: metricsOn(cpu) });
        const actual = await mergeToy(toy, tasks, options, { device: gpu, memory, metrics: metricsOn(gpu) });
        await assertDeltas(actual, await denseResult(expected), 1e-3);
      }
    }
  },
);

testOnGpu("iterisPlus() takes identities in blocks for the closed form on a GPU, too", async (gpu) => {
  const options = { plus: { rank: 3 } };
  const identities: OutputMetrics = {
    blocks(_task, module) {
      const rows = outputsOf(module);
      const stored = Array.from(
        { length: rows * BLOCK },
        (_, at) => Math.floor(at / BLOCK) % BLOCK === at % BLOCK ? 1 : 0,
      );
      return Promise.resolve(gpu.upload(Float64Array.from(stored), [rows, BLOCK]));
    },
  };
  const plain = await mergeToy(toy, tasks, options, { device: gpu });
  const merged = await mergeToy(toy, tasks, options, { device: gpu, metrics: identities });
  assertEquals(await denseResult(merged), await denseResult(plain));
});
