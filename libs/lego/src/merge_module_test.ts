import { assert, assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { assertRelativelyClose, relativeError } from "@lora-loom/testing";
import { CpuDevice } from "@lora-loom/tensor";
import { LegoError } from "./errors.ts";
import { mergeModule } from "./merge_module.ts";
import { lego, type LegoOptions, legoPlus, resolveOptions } from "./options.ts";
import {
  denseDelta,
  denseSum,
  type HostAdapter,
  inner,
  randomAdapter,
  regaugedAdapter,
} from "./test_support/dense_oracle.ts";
import { testOnDevices } from "./test_support/devices.ts";
import { explicitMerge, features, unitVectors } from "./test_support/explicit_oracle.ts";
import { mergeHost } from "./test_support/run.ts";

const SHAPE = { inputs: 22, outputs: 17 };

/** Three adapters of one random start, as adapters trained from one seed are: their units have partners. */
function relatives(rank: number, spread = 0.6): HostAdapter[] {
  const origin = randomAdapter({ ...SHAPE, rank, seed: 900 });
  return [0, 1, 2].map((t) => {
    const own = randomAdapter({
      ...SHAPE,
      rank,
      seed: 10 * t,
      scale: 0.5 + t / 2,
      weight: t === 2 ? 0.5 : 1,
    });
    const mixed = (x: Float64Array, y: Float64Array) =>
      Float64Array.from(x, (v, i) => Math.fround(v + spread * y[i]!));
    return { ...own, a: mixed(origin.a, own.a), b: mixed(origin.b, own.b) };
  });
}

/** Options that reproduce published re-implementations of the method, but for the number of clusters. */
const PUBLISHED: Record<string, LegoOptions> = {
  nemotronReasoningLab: { sign: "argmax", optimizer: "kmeans", restarts: 4, seed: 0, output_scale: "none" },
  smoea: { alpha_fold: "sqrt", optimizer: "kmeans", restarts: 10, seed: 0, output_scale: "sqrt(r/k)" },
  compressThenMerge: { alpha_fold: "none", optimizer: "kmeans", restarts: 10, output_scale: "sqrt(N/k)" },
  taraMerge: {
    features: "unit",
    alpha_fold: "none",
    optimizer: "kmeans",
    initialisation: "random",
    restarts: 1,
    max_iterations: 10,
    output_scale: "sqrt(r/k)",
  },
};

const VARIANTS: Record<string, LegoOptions> = {
  lego,
  legoPlus,
  ...PUBLISHED,
  l2: { parameter_reweight: "l2" },
  noReweight: { parameter_reweight: "none", output_scale: "frobenius" },
  ownScale: { output_scale: -0.25 },
  productOfUnits: { kernel: "product", features: "unit" },
  meanOfProduct: { kernel: "product", representative: "mean", output_scale: "none" },
  pairsReweighted: { ...legoPlus, parameter_reweight: "inf", alpha_fold: "none" },
  onePerAdapter: { ...legoPlus, one_per_adapter: true },
};

testOnDevices(
  "mergeModule() equals the method on explicit vectors, for every option",
  async ({ device, tolerance }) => {
    const adapters = relatives(5);
    for (const [name, options] of Object.entries(VARIANTS)) {
      for (const rank of [5, 8]) {
        const merged = await mergeHost(device, adapters, { ...options, rank });
        assertEquals(merged.rank, rank, name);
        const expected = explicitMerge(adapters, merged.clusters, resolveOptions(options));
        assertRelativelyClose(merged.delta, expected, Math.max(tolerance, 1e-10), `${name}, rank ${rank}:`);
      }
    }
  },
);

testOnDevices(
  "mergeModule() clusters so that no single move would lower the objective",
  async ({ device }) => {
    const adapters = relatives(5, 1.5);
    for (const [name, options] of Object.entries(VARIANTS)) {
      const resolved = resolveOptions(options);
      if (resolved.optimizer !== "ward" || resolved.one_per_adapter) continue;
      const { clusters, report } = await mergeHost(device, adapters, { ...options, rank: 6 });
      const points = clusters.map((cluster) =>
        cluster.map((unit) => features(unitVectors(adapters, unit, resolved), resolved))
      );
      const total = points.reduce((sum, cluster) => sum + scatter(cluster), 0);
      assertAlmostEquals(report.inertia, total, 1e-5 * total, name);
      points.forEach((cluster, from) =>
        cluster.forEach((point, i) => {
          if (cluster.length === 1) return;
          const without = scatter(cluster) - scatter(cluster.toSpliced(i, 1));
          points.forEach((other, to) => {
            if (to === from) return;
            const cost = scatter([...other, point]) - scatter(other);
            assert(cost > without - 1e-5 * total, `${name}: a unit of ${from} would rather be in ${to}`);
          });
        })
      );
    }
  },
);

/** Σ ‖xᵢ − mean‖². */
function scatter(points: readonly number[][]): number {
  if (points.length === 0) return 0;
  const centre = points[0]!.map((_, d) => points.reduce((sum, point) => sum + point[d]!, 0) / points.length);
  return points.reduce((sum, point) => sum + point.reduce((s, x, d) => s + (x - centre[d]!) ** 2, 0), 0);
}

testOnDevices(
  "mergeModule() reports the cosines, norms and losses of the dense deltas",
  async ({ device, tolerance }) => {
    const adapters = relatives(4);
    const deltas = adapters.map(denseDelta);
    const sum = denseSum(adapters);
    const cosine = (x: Float64Array, y: Float64Array) => inner(x, y) / Math.sqrt(inner(x, x) * inner(y, y));
    for (const options of [lego, legoPlus, VARIANTS["compressThenMerge"]!]) {
      const { delta, report } = await mergeHost(device, adapters, { ...options, rank: 5 });
      const close = (actual: number, expected: number) =>
        assertAlmostEquals(actual, expected, 10 * tolerance);
      deltas.forEach((source, t) => close(report.cosineToSources[t]!, cosine(delta, source)));
      close(report.cosineToSum, cosine(delta, sum));
      close(
        report.normRatio,
        Math.sqrt(inner(delta, delta)) / (deltas.reduce((s, x) => s + Math.sqrt(inner(x, x)), 0) / 3),
      );
      close(report.loss, Math.sqrt(1 - cosine(delta, sum) ** 2));
      assert(report.bestLoss <= report.loss + tolerance, "nothing beats the best rank k");
      assertEquals(report.clusterSizes.reduce((s, x) => s + x, 0), 12);
    }
  },
);

testOnDevices("mergeModule() balances the pairs it returns", async ({ device, tolerance }) => {
  for (const options of [lego, legoPlus]) {
    const { a, b, rank } = await mergeHost(device, relatives(4), { ...options, rank: 5 });
    for (let c = 0; c < rank; c++) {
      const row = a.subarray(c * SHAPE.inputs, (c + 1) * SHAPE.inputs);
      const column = b.filter((_, x) => x % rank === c);
      assertAlmostEquals(Math.sqrt(inner(row, row) / inner(column, column)), 1, tolerance);
    }
  }
});

testOnDevices(
  "mergeModule() with basis svd depends on the deltas alone, whatever their factors",
  async ({ device, tolerance }) => {
    const adapters = relatives(3);
    // Mixing the ranks of the first adapter by an invertible matrix: B ← B M, A ← M⁻¹ A, with M = [[1,1,0],[0,1,0],[0,0,1]].
    const [first, ...others] = adapters;
    const a = first!.a.slice(), b = first!.b.slice();
    for (let i = 0; i < SHAPE.inputs; i++) a[i]! -= a[SHAPE.inputs + i]!;
    for (let o = 0; o < SHAPE.outputs; o++) b[o * 3 + 1]! += b[o * 3]!;
    const mixed = [{ ...first!, a, b }, ...others];
    assertRelativelyClose(denseDelta(mixed[0]!), denseDelta(first!), 1e-12);
    for (const preset of [lego, legoPlus]) {
      const options = { ...preset, basis: "svd", sign: "argmax", rank: 5 } as const;
      const plain = await mergeHost(device, adapters, options);
      assertRelativelyClose((await mergeHost(device, mixed, options)).delta, plain.delta, 20 * tolerance);
      const native = { ...preset, rank: 5 };
      const difference = relativeError(
        (await mergeHost(device, mixed, native)).delta,
        (await mergeHost(device, adapters, native)).delta,
      );
      assert(difference > 0.01, "native units do depend on the factors");
    }
  },
);

testOnDevices(
  "mergeModule() with sign kernel does not see signs and scales within units",
  async ({ device, tolerance }) => {
    const adapters = relatives(4);
    const gauged = adapters.map((adapter, t) => regaugedAdapter(adapter, [1, -1, 8, t === 0 ? -0.125 : 0.5]));
    const options: LegoOptions = { sign: "kernel", rank: 5, parameter_reweight: "l2" };
    const plain = await mergeHost(device, adapters, options);
    assertRelativelyClose((await mergeHost(device, gauged, options)).delta, plain.delta, tolerance);
    // Copies that differ by signs only must add up, not cancel.
    const turned = regaugedAdapter(adapters[0]!, [-1, 1, -1, 1]);
    const merged = await mergeHost(device, [adapters[0]!, turned], {
      ...options,
      rank: 4,
      output_scale: "none",
    });
    assertRelativelyClose(merged.delta, denseDelta(adapters[0]!), tolerance);
  },
);

testOnDevices(
  "mergeModule() drops zero units and comes out smaller when too few are left",
  async ({ device, tolerance }) => {
    const adapter = randomAdapter({ ...SHAPE, rank: 4, seed: 1 });
    const fresh = {
      ...randomAdapter({ ...SHAPE, rank: 4, seed: 2 }),
      b: new Float64Array(SHAPE.outputs * 4),
    };
    const merged = await mergeHost(device, [adapter, fresh], { rank: 6, output_scale: "none" });
    assertEquals([merged.rank, merged.report.rank, merged.report.units, merged.report.zeroUnits], [
      4,
      4,
      4,
      4,
    ]);
    assertRelativelyClose(merged.delta, denseDelta(adapter), tolerance);

    const muted = await mergeHost(device, [adapter, { ...adapter, weight: 0 }], { output_scale: "none" });
    assertRelativelyClose(muted.delta, denseDelta(adapter), tolerance);

    const nothing = await mergeHost(device, [fresh, fresh], lego);
    assertEquals([nothing.rank, nothing.report.rank, nothing.report.units], [1, 0, 0]);
    assert(nothing.delta.every((x) => x === 0));
  },
);

testOnDevices(
  "mergeModule() takes opposite adapters, whose units cancel in pairs",
  async ({ device, tolerance }) => {
    const adapter = randomAdapter({ ...SHAPE, rank: 3, seed: 1 });
    const merged = await mergeHost(device, [adapter, { ...adapter, weight: -1 }], { ...legoPlus, rank: 3 });
    assert(merged.delta.every((x) => Number.isFinite(x)));
    const full = await mergeHost(device, [adapter, { ...adapter, weight: -1 }], {
      rank: 6,
      output_scale: "none",
    });
    assert(
      Math.sqrt(inner(full.delta, full.delta)) <
        tolerance * Math.sqrt(inner(denseDelta(adapter), denseDelta(adapter))),
    );
  },
);

testOnDevices("mergeModule() prunes a single adapter to any rank below its own", async ({ device }) => {
  const adapter = randomAdapter({ ...SHAPE, rank: 8, seed: 6 });
  for (const preset of [lego, legoPlus]) {
    let previous = -1;
    for (const rank of [1, 4, 8]) {
      const { rank: found, report } = await mergeHost(device, [adapter], { ...preset, rank });
      assertEquals(found, rank);
      assert(report.cosineToSum > previous, "more clusters, closer to the adapter");
      previous = report.cosineToSum;
    }
  }
});

Deno.test("mergeModule() gives the same bits for the same seed", async () => {
  const device = new CpuDevice();
  for (const options of Object.values(VARIANTS)) {
    const [x, y] = [
      await mergeHost(device, relatives(4), options),
      await mergeHost(device, relatives(4), options),
    ];
    assertEquals(x.a, y.a);
    assertEquals(x.b, y.b);
  }
});

Deno.test("mergeModule() disposes what it made on the way", async () => {
  const device = new CpuDevice();
  const merge = async (options: LegoOptions) => {
    await mergeHost(device, relatives(4), options);
    assertEquals(device.memory.bytes, 0);
  };
  await merge(lego);
  await merge({ ...lego, basis: "svd", sign: "argmax" });
});

Deno.test("mergeModule() refuses ranks, options and adapters that make no sense, and says what would", async () => {
  const device = new CpuDevice();
  const rejects = async (adapters: HostAdapter[], options: LegoOptions, code: string, fix: string) => {
    const error = await assertRejects(() => mergeHost(device, adapters, options), LegoError);
    assertEquals(error.code, code);
    assertStringIncludes(error.fix, fix);
  };
  for (const rank of [0, 13, 2.5, NaN]) {
    await rejects(relatives(4), { rank }, "rank_out_of_range", "from 1 to 12");
  }
  await rejects(relatives(4), { rank: 3, one_per_adapter: true }, "rank_out_of_range", "at least 4");
  await rejects(relatives(4), { features: "rwa" as "raw" }, "invalid_option", "raw, unit");
  await rejects(relatives(4), { max_iterations: 0 }, "invalid_option", "a whole number from 1");
  await rejects(relatives(4), { alphaFold: "b" } as LegoOptions, "unknown_option", "alpha_fold");
  const narrow = randomAdapter({ inputs: 5, outputs: SHAPE.outputs, rank: 2, seed: 1 });
  await rejects([...relatives(2), narrow], {}, "shape_mismatch", "same base model");
  await rejects([{ ...narrow, scale: Infinity }], {}, "not_finite", "finite");
  await rejects([{ ...narrow, a: narrow.a.map(() => NaN) }], {}, "not_finite", "NaN");
  const empty = await assertRejects(() => mergeModule([]), LegoError);
  assertEquals(empty.code, "no_adapters");
});

testOnDevices(
  "mergeModule() pairs the units of near copies, whose distances float32 barely resolves",
  async ({ device }) => {
    for (const spread of [1e-2, 1e-3, 1e-4]) {
      const adapters = relatives(5, spread).map((adapter) => ({ ...adapter, scale: 1, weight: 1 }));
      for (const preset of [lego, legoPlus]) {
        const { clusters, delta } = await mergeHost(device, adapters, { ...preset, rank: 5 });
        for (const cluster of clusters) {
          assertEquals(cluster.map(({ adapter }) => adapter).sort(), [0, 1, 2]);
          assertEquals(new Set(cluster.map(({ index }) => index)).size, 1);
        }
        // The members differ by about `spread` relative to their size, and so does the result from any one of them.
        assert(relativeError(delta, denseDelta(adapters[0]!)) < 3 * spread);
      }
    }
  },
);
