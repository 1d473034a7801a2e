/** Properties that must hold for arbitrary pools, found by searching for counterexamples. */
import { assert, assertEquals } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { CpuDevice } from "@lora-loom/tensor";
import fc from "fast-check";
import { lego, type LegoOptions, legoPlus } from "./options.ts";
import {
  denseSum,
  type HostAdapter,
  inner,
  permutedRanks,
  randomAdapter,
  regaugedAdapter,
} from "./test_support/dense_oracle.ts";
import { mergeHost } from "./test_support/run.ts";

const device = new CpuDevice();

const pools = fc.record({
  ranks: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }),
  inputs: fc.integer({ min: 2, max: 20 }),
  outputs: fc.integer({ min: 2, max: 20 }),
  seed: fc.nat(1e6),
}).map(({ ranks, inputs, outputs, seed }) =>
  ranks.map((rank, t) =>
    randomAdapter({ inputs, outputs, rank, seed: seed + 17 * t, scale: 0.5 + t, weight: 1 - 0.3 * t })
  )
);

const presets = fc.constantFrom<LegoOptions>(
  lego,
  legoPlus,
  { ...lego, alpha_fold: "sqrt", features: "unit" },
  { ...lego, sign: "argmax", parameter_reweight: "l2" },
  { ...lego, sign: "kernel" },
);

function totalRank(adapters: readonly HostAdapter[]): number {
  return adapters.reduce((total, { rank }) => total + rank, 0);
}

function run(property: fc.IAsyncProperty<unknown>): Promise<void> {
  return fc.assert(property as fc.IAsyncProperty<[unknown]>, { numRuns: 60, seed: 7 }) as Promise<void>;
}

Deno.test("mergeModule() gives the sum at k = Σr without output scale, for any pool and option", () =>
  run(fc.asyncProperty(pools, presets, async (adapters, preset) => {
    const options = { ...preset, rank: totalRank(adapters), output_scale: "none" } as const;
    assertRelativelyClose((await mergeHost(device, adapters, options)).delta, denseSum(adapters), 1e-12);
  })));

Deno.test("mergeModule() does not depend on the order of ranks or of adapters", () =>
  run(fc.asyncProperty(pools, presets, fc.nat(), async (adapters, preset, pick) => {
    const options = { ...preset, rank: 1 + (pick % totalRank(adapters)) };
    const plain = await mergeHost(device, adapters, options);
    const reversed = adapters.map((adapter) =>
      permutedRanks(adapter, Array.from({ length: adapter.rank }, (_, i) => adapter.rank - 1 - i))
    ).reverse();
    // A cluster whose deltas nearly cancel magnifies rounding, and so does dividing by its norm.
    assertRelativelyClose((await mergeHost(device, reversed, options)).delta, plain.delta, 1e-9);
  })));

Deno.test("lego+ does not depend on gauges, and its report never beats the best rank k", () =>
  run(
    fc.asyncProperty(
      pools,
      fc.array(fc.constantFrom(-1, 1, 4, -0.25), { minLength: 6, maxLength: 6 }),
      fc.nat(),
      async (
        adapters,
        gauge,
        pick,
      ) => {
        const options = { ...legoPlus, rank: 1 + (pick % totalRank(adapters)) };
        const plain = await mergeHost(device, adapters, options);
        const gauged = await mergeHost(
          device,
          adapters.map((adapter) => regaugedAdapter(adapter, gauge)),
          options,
        );
        assertRelativelyClose(gauged.delta, plain.delta, 1e-8);
        assert(plain.report.loss >= plain.report.bestLoss - 1e-7);
        assertEquals(plain.report.clusterSizes.reduce((total, size) => total + size, 0), totalRank(adapters));
      },
    ),
  ));

Deno.test("output_scale frobenius brings the norm to the mean norm of the adapters", () =>
  run(fc.asyncProperty(pools, presets, fc.nat(), async (adapters, preset, pick) => {
    const options = { ...preset, rank: 1 + (pick % totalRank(adapters)), output_scale: "frobenius" } as const;
    const { delta, report } = await mergeHost(device, adapters, options);
    const norms = adapters.map((adapter) => denseSum([adapter])).map((x) => Math.sqrt(inner(x, x))).filter((
      x,
    ) => x > 0);
    const mean = norms.reduce((total, x) => total + x, 0) / norms.length;
    assert(Math.abs(Math.sqrt(inner(delta, delta)) / mean - 1) < 1e-9);
    assert(Math.abs(report.normRatio - 1) < 1e-9);
  })));
