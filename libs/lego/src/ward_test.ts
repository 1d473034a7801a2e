import { assertEquals } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import { canonicalLabels } from "./partition.ts";
import { ward } from "./ward.ts";

function points(n: number, d: number, seed: number): number[][] {
  const data = gaussians(n * d, seed);
  return Array.from({ length: n }, (_, i) => [...data.subarray(i * d, (i + 1) * d)]);
}

function gram(x: readonly number[][]): Float64Array<ArrayBuffer> {
  return Float64Array.from(
    x.flatMap((p) => x.map((q) => p.reduce((total, value, d) => total + value * q[d]!, 0))),
  );
}

/** Greedy merging by explicit centroids: the definition of the linkage. */
function greedy(x: readonly number[][], clusters: number): number[] {
  const groups = x.map((_, i) => [i]);
  const centroid = (group: number[]) =>
    x[0]!.map((_, d) => group.reduce((total, i) => total + x[i]![d]!, 0) / group.length);
  while (groups.length > clusters) {
    let least = Infinity;
    let pair = [0, 1];
    for (let i = 0; i < groups.length; i++) {
      for (let j = i + 1; j < groups.length; j++) {
        const [p, q] = [centroid(groups[i]!), centroid(groups[j]!)];
        const [m, n] = [groups[i]!.length, groups[j]!.length];
        const cost = (m * n) / (m + n) * p.reduce((total, value, d) => total + (value - q[d]!) ** 2, 0);
        if (cost < least) {
          least = cost;
          pair = [i, j];
        }
      }
    }
    groups[pair[0]!]!.push(...groups[pair[1]!]!);
    groups.splice(pair[1]!, 1);
  }
  const labels = new Array<number>(x.length);
  groups.forEach((group, label) => group.forEach((i) => labels[i] = label));
  return labels;
}

Deno.test("ward() equals greedy merging at every cut", () => {
  for (const [n, d, seed] of [[2, 3, 1], [7, 2, 2], [20, 3, 3], [24, 40, 4]] as const) {
    const x = points(n, d, seed);
    for (let k = 1; k <= n; k++) {
      assertEquals(canonicalLabels(ward(gram(x), n, k)), canonicalLabels(greedy(x, k)), `n ${n}, k ${k}`);
    }
  }
});

Deno.test("ward() gives exactly as many clusters as asked when points coincide or all tie", () => {
  const copies = [...points(4, 3, 1), ...points(4, 3, 1), ...points(4, 3, 1)];
  const identity = Float64Array.from({ length: 144 }, (_, x) => x % 13 === 0 ? 1 : 0);
  for (let k = 1; k <= 12; k++) {
    assertEquals(new Set(ward(gram(copies), 12, k)).size, k);
    assertEquals(new Set(ward(identity, 12, k)).size, k);
  }
  const labels = canonicalLabels(ward(gram(copies), 12, 4));
  assertEquals(labels, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
});

Deno.test("ward() takes one point", () => {
  assertEquals(ward(Float64Array.of(3), 1, 1), [0]);
});
