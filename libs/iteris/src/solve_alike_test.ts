import { assertEquals, assertLess } from "@std/assert";
import { CpuDevice, type Device, gemm, gram } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import type { Moments } from "./equations.ts";
import { alikeGroups } from "./solve_alike.ts";
import { type SiteProblem, type SolvedSite, solveStage, type StageProblem } from "./solve_stage.ts";
import { testOnGpu } from "./test_support/devices.ts";

const [IN, OUT, RANK] = [40, 12, 3];

function siteOf(device: Device, index: number, weights: readonly number[]): SiteProblem {
  const random = (rows: number, columns: number, seed: number) =>
    device.upload(gaussians(rows * columns, seed).map(Math.fround), [rows, columns]);
  const a = weights.map((_, task) => random(RANK, IN, 10 * index + task));
  return {
    site: { module: `m${index}`, inFeatures: IN, outFeatures: OUT, writesStream: false },
    deltas: a.map((factor, task) => ({ a: factor, b: random(OUT, RANK, 100 + 10 * index + task) })),
    stackedB: random(OUT, RANK * weights.length, 200 + index),
    baseWeight: undefined,
    weights,
    heldOutEnergy: 0,
  };
}

function momentsOf(device: Device, task: number): Moments {
  using x = device.upload(gaussians(3 * IN * IN, 300 + task).map(Math.fround), [3 * IN, IN]);
  const own = gram(x, { of: "columns" });
  const norm = 10 + task;
  return {
    own,
    drift: undefined,
    crossOfFactors: new Map(),
    stream: undefined,
    ownNorm: norm,
    crossNorm: norm,
  };
}

/** Modules that read the same input, with these weights of the tasks. */
function stageOf(device: Device, weights: readonly (readonly number[])[]): StageProblem {
  const sites = weights.map((each, index) => siteOf(device, index, each));
  return {
    stage: { index: 0, name: "stage", sites: sites.map(({ site }) => site) },
    sites,
    moments: weights[0]!.map((_, task) => momentsOf(device, task)),
    split: undefined,
    target: { drift: false, stream: false },
    alpha: 1e-3,
    rank: undefined,
    truncation: "weighted",
    metric: undefined,
    roundoff: device.info.backend === "cpu" ? 2 ** -53 : 2 ** -24,
    precision: "single",
  };
}

async function deltasOf(solved: readonly SolvedSite[]): Promise<Map<string, ArrayLike<number>>> {
  const result = new Map<string, ArrayLike<number>>();
  for (const { module, solution: { a, b } } of solved) {
    using whole = gemm(b, a);
    result.set(module, await whole.device.download(whole));
  }
  return result;
}

Deno.test("alikeGroups() puts weights together that differ by little beyond a common factor", () => {
  const device = new CpuDevice();
  const groups = [[1, 2], [3, 6.3], [1, 4], [0.5, 1.2]].map((weights, index) => [
    siteOf(device, index, weights),
  ]);
  const modules = alikeGroups(groups).map((some) => some.map(([site]) => site!.site.module));
  assertEquals(modules, [["m0", "m1", "m3"], ["m2"]]);
});

testOnGpu(
  "solveStage() solves on a GPU what float64 does, whether weights are alike or not",
  async (device) => {
    const weights = [[1, 2], [3, 6.3], [1, 2], [1, 8], [0.5, 1.2]];
    const host = await solveStage(stageOf(new CpuDevice(), weights));
    const there = await solveStage(stageOf(device, weights));
    const [expected, found] = [await deltasOf(host), await deltasOf(there)];
    assertEquals(found.size, weights.length);
    for (const [module, values] of found) {
      assertRelativelyClose(
        values,
        Float64Array.from(expected.get(module)!),
        1e-5,
        module,
      );
    }
    for (const { solution } of there) assertLess(solution.backwardError, 1e-7);
    const stepsOf = (module: string) => there.find((site) => site.module === module)!.solution.iterations;
    assertLess(stepsOf("m0"), stepsOf("m4"));
  },
);
