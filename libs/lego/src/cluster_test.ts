import { assert, assertAlmostEquals, assertEquals, assertLessOrEqual } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import { adjustedRandIndex } from "./adjusted_rand_index.ts";
import { cluster } from "./cluster.ts";
import { lego, type ResolvedOptions } from "./options.ts";
import { clusterMembers } from "./partition.ts";

/** `groups` tight groups of `size` points each, far apart; point i belongs to group i mod groups. */
function separated(groups: number, size: number, seed: number): Float64Array<ArrayBuffer> {
  const n = groups * size, d = 8;
  const centres = gaussians(groups * d, seed).map((x) => 10 * x);
  const x = gaussians(n * d, seed + 1).map((v, index) =>
    0.1 * v + centres[(Math.floor(index / d) % groups) * d + (index % d)]!
  );
  return Float64Array.from({ length: n * n }, (_, index) => {
    let total = 0;
    for (let p = 0; p < d; p++) total += x[Math.floor(index / n) * d + p]! * x[(index % n) * d + p]!;
    return total;
  });
}

const OPTIMISERS: Partial<ResolvedOptions>[] = [
  { optimizer: "ward" },
  { optimizer: "ward", restarts: 0 },
  { optimizer: "kmeans", restarts: 20 },
  { optimizer: "kmeans", restarts: 60, initialisation: "random" },
  { one_per_adapter: true },
];

Deno.test("cluster() finds separated groups with every optimiser", () => {
  const groups = 5, size = 4, n = groups * size;
  const owners = Array.from({ length: n }, (_, i) => Math.floor(i / groups));
  for (const options of OPTIMISERS) {
    const { labels } = cluster(separated(groups, size, 3), n, groups, owners, { ...lego, ...options });
    assertEquals(labels, Array.from({ length: n }, (_, i) => i % groups), JSON.stringify(options));
  }
});

Deno.test("cluster() gives exactly k clusters when points coincide, with every optimiser", () => {
  const n = 9;
  const copies = new Float64Array(n * n).fill(1);
  const owners = Array.from({ length: n }, (_, i) => Math.floor(i / 3));
  for (const options of OPTIMISERS) {
    for (let k = options.one_per_adapter ? 3 : 1; k <= n; k++) {
      const { labels, inertia } = cluster(copies, n, k, owners, { ...lego, ...options });
      if (!options.one_per_adapter) {
        assertEquals(new Set(labels).size, k, `${JSON.stringify(options)}, k = ${k}`);
      }
      assertLessOrEqual(inertia, 1e-12);
    }
  }
});

Deno.test("cluster() with one_per_adapter never puts two units of an adapter together", () => {
  const n = 24;
  for (let seed = 0; seed < 10; seed++) {
    const x = gaussians(n * 6, seed);
    const kernel = Float64Array.from({ length: n * n }, (_, index) => {
      let total = 0;
      for (let p = 0; p < 6; p++) total += x[Math.floor(index / n) * 6 + p]! * x[(index % n) * 6 + p]!;
      return total;
    });
    const owners = Array.from({ length: n }, (_, i) => i < 4 ? 0 : i < 14 ? 1 : 2);
    for (const k of [10, 12, 20, 24]) {
      const { labels, inertia } = cluster(kernel, n, k, owners, { ...lego, one_per_adapter: true });
      for (const members of clusterMembers(labels)) {
        assertEquals(new Set(members.map((i) => owners[i])).size, members.length);
      }
      const free = cluster(kernel, n, k, owners, lego).inertia;
      assertLessOrEqual(free, inertia * (1 + 1e-9), "the constraint cannot help");
    }
  }
});

Deno.test("cluster() never does worse with more restarts and says how far they agree", () => {
  const n = 30;
  const x = gaussians(n * 3, 7);
  const kernel = Float64Array.from({ length: n * n }, (_, index) => {
    let total = 0;
    for (let p = 0; p < 3; p++) total += x[Math.floor(index / n) * 3 + p]! * x[(index % n) * 3 + p]!;
    return total;
  });
  const owners = new Array<number>(n).fill(0);
  for (const optimizer of ["ward", "kmeans"] as const) {
    let previous = Infinity;
    for (const restarts of [1, 5, 50]) {
      const { inertia, agreement } = cluster(kernel, n, 8, owners, { ...lego, optimizer, restarts });
      assertLessOrEqual(inertia, previous);
      assert(agreement === undefined ? restarts === 1 : agreement > 0 && agreement <= 1);
      previous = inertia;
    }
  }
  assertEquals(cluster(separated(3, 3, 1), 9, 3, owners, { ...lego, restarts: 5 }).agreement, 1);
});

Deno.test("adjustedRandIndex() is 1 for renamed partitions and matches a worked example", () => {
  assertEquals(adjustedRandIndex([0, 0, 1, 2], [5, 5, 9, 7]), 1);
  assertEquals(adjustedRandIndex([0, 0, 0], [1, 1, 1]), 1);
  // Contingency [[1, 1], [0, 2]]: pairs together 1, in rows 2, in columns 3, of 6; (1 − 1) / (2.5 − 1) = 0.
  assertAlmostEquals(adjustedRandIndex([0, 0, 1, 1], [0, 1, 1, 1]), 0, 1e-15);
  // Contingency [[2, 1], [0, 3]]: together 4, in rows 6, in columns 7, of 15: (4 − 2.8) / (6.5 − 2.8).
  assertAlmostEquals(adjustedRandIndex([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]), 1.2 / 3.7, 1e-15);
});
