/** The ten properties that any LoRA-LEGO implementation must have, checked against dense float64 deltas. */
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { assertRelativelyClose, gaussians, relativeError, seeded } from "@lora-loom/testing";
import { initialCentres, lloyd, nearestCentre } from "./kmeans.ts";
import { cluster } from "./cluster.ts";
import { lego, type LegoOptions, legoPlus } from "./options.ts";
import { Partition } from "./partition.ts";
import {
  denseDelta,
  denseSum,
  type HostAdapter,
  permutedRanks,
  randomAdapter,
  regaugedAdapter,
} from "./test_support/dense_oracle.ts";
import { testOnDevices } from "./test_support/devices.ts";
import { mergeHost } from "./test_support/run.ts";

const SHAPE = { inputs: 40, outputs: 28 };
const PRESETS: Record<string, LegoOptions> = { lego, legoPlus };

function adaptersOfRanks(ranks: readonly number[], seed = 1): HostAdapter[] {
  return ranks.map((rank, t) =>
    randomAdapter({ ...SHAPE, rank, seed: seed + 10 * t, scale: 0.5 + t, weight: 1 + t / 4 })
  );
}

function shuffledRanks(adapters: readonly HostAdapter[], seed: number): HostAdapter[] {
  const random = seeded(seed);
  return adapters.map((adapter) => {
    const order = Array.from({ length: adapter.rank }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return permutedRanks(adapter, order);
  });
}

testOnDevices(
  "1: mergeModule() does not depend on the order of an adapter's ranks",
  async ({ device, tolerance }) => {
    const adapters = adaptersOfRanks([6, 6, 6]);
    for (const [name, preset] of Object.entries(PRESETS)) {
      for (const rank of [4, 9, 12]) {
        const plain = await mergeHost(device, adapters, { ...preset, rank });
        for (const seed of [1, 2]) {
          const shuffled = await mergeHost(device, shuffledRanks(adapters, seed), { ...preset, rank });
          assertRelativelyClose(shuffled.delta, plain.delta, tolerance, `${name}, rank ${rank}:`);
        }
      }
    }
  },
);

testOnDevices(
  "2: mergeModule() gives the sum when every unit is a cluster, and the sum/√T with √(r/k)",
  async ({ device, tolerance }) => {
    const adapters = adaptersOfRanks([5, 5, 5, 5]);
    const sum = denseSum(adapters);
    for (const [name, preset] of Object.entries(PRESETS)) {
      const plain = await mergeHost(device, adapters, { ...preset, rank: 20, output_scale: "none" });
      assertEquals(plain.rank, 20);
      assertRelativelyClose(plain.delta, sum, tolerance, `${name}:`);
      const scaled = await mergeHost(device, adapters, { ...preset, rank: 20, output_scale: "sqrt(r/k)" });
      assertRelativelyClose(scaled.delta, sum.map((x) => x / 2), tolerance, `${name} √(r/k):`);
      const unscaled = await mergeHost(device, adapters, { ...preset, rank: 20, output_scale: "sqrt(N/k)" });
      assertRelativelyClose(unscaled.delta, sum, tolerance, `${name} √(N/k):`);
    }
  },
);

testOnDevices(
  "3: mergeModule() gives the adapter itself from copies of it",
  async ({ device, tolerance }) => {
    const adapter = randomAdapter({ ...SHAPE, rank: 6, seed: 3, scale: 2 });
    for (const [name, preset] of Object.entries(PRESETS)) {
      for (const copies of [2, 3]) {
        const merged = await mergeHost(device, new Array<HostAdapter>(copies).fill(adapter), {
          ...preset,
          rank: 6,
        });
        assertRelativelyClose(merged.delta, denseDelta(adapter), tolerance, `${name}, ${copies} copies:`);
        assertEquals(merged.report.mixedShare, 1);
      }
    }
  },
);

testOnDevices("4: mergeModule() returns a single adapter when k = r", async ({ device, tolerance }) => {
  const adapter = randomAdapter({ ...SHAPE, rank: 7, seed: 4, scale: 1.5, weight: 0.5 });
  for (const [name, preset] of Object.entries(PRESETS)) {
    for (const basis of ["native", "svd"] as const) {
      const merged = await mergeHost(device, [adapter], { ...preset, basis });
      assertRelativelyClose(merged.delta, denseDelta(adapter), tolerance, `${name}, ${basis}:`);
    }
  }
});

testOnDevices("5: lego+ does not depend on the gauge of a unit, lego does", async ({ device, tolerance }) => {
  const adapters = adaptersOfRanks([6, 6], 5);
  for (const c of [-1, 10, 1e-3]) {
    const gauged = adapters.map((adapter) =>
      regaugedAdapter(adapter, Array.from({ length: adapter.rank }, (_, i) => i % 2 === 0 ? c : 1))
    );
    const options = { rank: 5 };
    const [plus, plusGauged] = [
      await mergeHost(device, adapters, { ...legoPlus, ...options }),
      await mergeHost(device, gauged, { ...legoPlus, ...options }),
    ];
    assertRelativelyClose(plusGauged.delta, plus.delta, tolerance, `lego+, c = ${c}:`);
    const [plain, plainGauged] = [
      await mergeHost(device, adapters, { ...lego, ...options }),
      await mergeHost(device, gauged, { ...lego, ...options }),
    ];
    assertGreater(relativeError(plainGauged.delta, plain.delta), 0.05, `lego, c = ${c}`);
  }
});

testOnDevices(
  "6: every partition of an orthonormal pool into k clusters has inertia N − k",
  async ({ device }) => {
    // Rows of the identity: a of adapter t is e_{4t…4t+3}, b = 0 but for a tiny part that keeps the units alive.
    const n = 12;
    const adapters = [0, 1, 2].map((t): HostAdapter => ({
      a: Float64Array.from({ length: 4 * n }, (_, x) => x % n === 4 * t + Math.floor(x / n) ? 1 : 0),
      b: Float64Array.from({ length: 4 }, () => 2 ** -30),
      rank: 4,
      scale: 1,
      weight: 1,
    }));
    const identity = Float64Array.from({ length: n * n }, (_, x) => x % (n + 1) === 0 ? 1 : 0);
    for (let k = 1; k <= n; k++) {
      const merged = await mergeHost(device, adapters, { ...lego, rank: k });
      assert(Math.abs(merged.report.inertia - (n - k)) < 1e-6, `k = ${k}: ${merged.report.inertia}`);
      const labels = Array.from({ length: n }, (_, i) => i < k ? i : (i * 5) % k);
      assert(Math.abs(new Partition(identity, n, k, labels).inertia() - (n - k)) < 1e-12);
    }
  },
);

testOnDevices("7: mixed ranks keep 1 and 2", async ({ device, tolerance }) => {
  const adapters = adaptersOfRanks([4, 8, 16], 7);
  for (const [name, preset] of Object.entries(PRESETS)) {
    const plain = await mergeHost(device, adapters, { ...preset, rank: 10 });
    const shuffled = await mergeHost(device, shuffledRanks(adapters, 3), { ...preset, rank: 10 });
    assertRelativelyClose(shuffled.delta, plain.delta, tolerance, `${name}, shuffled:`);
    const full = await mergeHost(device, adapters, { ...preset, rank: 28, output_scale: "none" });
    assertRelativelyClose(full.delta, denseSum(adapters), tolerance, `${name}, sum:`);
  }
});

testOnDevices("8: a factor may move from alpha to B, for lego+ also to A", async ({ device, tolerance }) => {
  const adapters = adaptersOfRanks([6, 6], 8);
  const c = 8; // a power of two, so that float32 divides exactly
  const intoB = adapters.map((adapter, t) =>
    t === 0 ? { ...adapter, scale: adapter.scale * c, b: adapter.b.map((x) => x / c) } : adapter
  );
  const intoA = adapters.map((adapter, t) =>
    t === 0 ? { ...adapter, scale: adapter.scale * c, a: adapter.a.map((x) => x / c) } : adapter
  );
  for (const [name, preset] of Object.entries(PRESETS)) {
    const plain = await mergeHost(device, adapters, { ...preset, rank: 7 });
    const moved = await mergeHost(device, intoB, { ...preset, rank: 7 });
    assertRelativelyClose(moved.delta, plain.delta, tolerance, `${name}, B:`);
  }
  const plus = await mergeHost(device, adapters, { ...legoPlus, rank: 7 });
  const moved = await mergeHost(device, intoA, { ...legoPlus, rank: 7 });
  assertRelativelyClose(moved.delta, plus.delta, tolerance, "lego+, A:");
  const faithful = await mergeHost(device, adapters, { ...lego, rank: 7 });
  const faithfulMoved = await mergeHost(device, intoA, { ...lego, rank: 7 });
  assertGreater(relativeError(faithfulMoved.delta, faithful.delta), 0.01, "lego, A");
});

testOnDevices("9: the inertia of the Gram matrices is that of the vectors", async ({ device }) => {
  const adapters = adaptersOfRanks([6, 6, 6], 9).map((adapter) => ({ ...adapter, scale: 1, weight: 1 }));
  const units = adapters.flatMap(({ a, b, rank }) =>
    Array.from({ length: rank }, (_, i) => [
      ...a.subarray(i * SHAPE.inputs, (i + 1) * SHAPE.inputs),
      ...Array.from({ length: SHAPE.outputs }, (_, o) => b[o * rank + i]!),
    ])
  );
  // With one cluster, and with every unit its own, the partition is known.
  const centre = units[0]!.map((_, x) => units.reduce((total, unit) => total + unit[x]!, 0) / units.length);
  const direct = units.reduce(
    (total, unit) => total + unit.reduce((s, x, i) => s + (x - centre[i]!) ** 2, 0),
    0,
  );
  const one = await mergeHost(device, adapters, { ...lego, rank: 1 });
  assert(Math.abs(one.report.inertia - direct) <= 1e-5 * direct, `${one.report.inertia} against ${direct}`);
  const all = await mergeHost(device, adapters, { ...lego, rank: 18 });
  assertLessOrEqual(all.report.inertia, 1e-5 * direct);
  for (const rank of [3, 6, 12]) {
    const { report } = await mergeHost(device, adapters, { ...lego, rank });
    assertLessOrEqual(report.inertiaBound, report.inertia * (1 + 1e-9), "no partition beats the bound");
    assertLessOrEqual(report.inertia, one.report.inertia);
  }
});

Deno.test("9: Partition sums agree with direct centroids after many moves", () => {
  const n = 30, d = 7, clusters = 5;
  const points = gaussians(n * d, 4);
  const kernel = Float64Array.from({ length: n * n }, (_, x) => {
    const i = Math.floor(x / n), j = x % n;
    let total = 0;
    for (let p = 0; p < d; p++) total += points[i * d + p]! * points[j * d + p]!;
    return total;
  });
  const partition = new Partition(kernel, n, clusters, Array.from({ length: n }, (_, i) => i % clusters));
  const random = seeded(1);
  for (let move = 0; move < 500; move++) {
    const point = Math.floor(random() * n);
    if (partition.sizes[partition.labels[point]!]! === 1) continue;
    partition.remove(point);
    partition.add(point, Math.floor(random() * clusters));
  }
  let direct = 0;
  for (let c = 0; c < clusters; c++) {
    const members = [...partition.labels.keys()].filter((i) => partition.labels[i] === c);
    assertEquals(members.length, partition.sizes[c]);
    for (let p = 0; p < d; p++) {
      const mean = members.reduce((total, i) => total + points[i * d + p]!, 0) / members.length;
      for (const i of members) direct += (points[i * d + p]! - mean) ** 2;
    }
  }
  assert(Math.abs(partition.inertia() - direct) < 1e-10 * direct, `${partition.inertia()} against ${direct}`);
});

Deno.test("10: Ward and Hartigan reach 1.01 × the best of 64 runs of Lloyd", () => {
  const pools: [name: string, n: number, d: number, k: number, kernel: Float64Array<ArrayBuffer>][] = [];
  for (
    const [n, d, k, seed] of [[24, 6, 6, 1], [48, 200, 12, 2], [80, 40, 16, 3], [60, 4, 20, 4], [
      96,
      300,
      32,
      5,
    ]] as const
  ) {
    const centres = gaussians(k * d, seed);
    for (const spread of [0.2, 1, 5]) {
      const noise = gaussians(n * d, seed + 50);
      const points = noise.map((x, index) =>
        spread * x + centres[(Math.floor(index / d) % k) * d + (index % d)]!
      );
      const kernel = Float64Array.from({ length: n * n }, (_, x) => {
        let total = 0;
        for (let p = 0; p < d; p++) total += points[Math.floor(x / n) * d + p]! * points[(x % n) * d + p]!;
        return total;
      });
      pools.push([`n ${n}, d ${d}, k ${k}, spread ${spread}`, n, d, k, kernel]);
    }
  }
  for (const [name, n, d, k, kernel] of pools) {
    const owners = new Array<number>(n).fill(0);
    const found = cluster(kernel, n, k, owners, lego).inertia;
    const wardAlone = cluster(kernel, n, k, owners, { ...lego, restarts: 0 }).inertia;
    const random = seeded(n);
    let best = Infinity;
    for (let run = 0; run < 64; run++) {
      const labels = nearestCentre(kernel, n, initialCentres(kernel, n, k, random, "k-means++"));
      best = Math.min(best, lloyd(new Partition(kernel, n, k, labels), 100).inertia());
    }
    assertLessOrEqual(found, 1.01 * best, name);
    assertLessOrEqual(found, wardAlone, name);
    // Units live in thousands of dimensions; only in few does Ward alone fall behind.
    if (d >= n) assertLessOrEqual(wardAlone, 1.01 * best, `${name}, without restarts`);
  }
});
