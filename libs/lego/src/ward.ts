/**
 * Ward's linkage on a kernel matrix, cut at `clusters`: repeatedly merges the two clusters whose union adds least to the
 * k-means objective. Found with nearest-neighbour chains, which yield the same tree in O(n²) (Ward's linkage is
 * reducible), and the Lance–Williams update on squared distances.
 *
 * @param kernel n × n
 * @returns the cluster of each point
 */
export function ward(kernel: Float64Array, n: number, clusters: number): number[] {
  return cut(mergeAll(squaredDistances(kernel, n), n), n, clusters);
}

interface Merge {
  readonly left: number;
  readonly right: number;
  readonly height: number;
}

function squaredDistances(kernel: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const d = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      d[i * n + j] = i === j
        ? 0
        : Math.max(0, kernel[i * n + i]! + kernel[j * n + j]! - 2 * kernel[i * n + j]!);
    }
  }
  return d;
}

/** All n − 1 merges; a cluster goes by the lowest of its points. Consumes `d`. */
function mergeAll(d: Float64Array, n: number): Merge[] {
  const sizes = new Int32Array(n).fill(1);
  const active = Array.from({ length: n }, (_, i) => i);
  const heights = new Float64Array(n);
  const merges: Merge[] = [];
  const chain: number[] = [];
  while (active.length > 1) {
    if (chain.length === 0) chain.push(active[0]!);
    const tip = chain[chain.length - 1]!;
    const previous = chain[chain.length - 2];
    const nearest = nearestNeighbour(d, n, active, tip, previous);
    if (nearest !== previous) {
      chain.push(nearest);
      continue;
    }
    chain.length -= 2;
    const left = Math.min(tip, nearest);
    const right = Math.max(tip, nearest);
    // Rounding must not let a merge come before those it is made of.
    const height = Math.max(d[tip * n + nearest]!, heights[left]!, heights[right]!);
    merges.push({ left, right, height });
    lanceWilliams(d, n, active, sizes, left, right);
    sizes[left]! += sizes[right]!;
    heights[left] = height;
    active.splice(active.indexOf(right), 1);
  }
  return merges;
}

/** The closest active cluster: `previous` wins ties (or the chain might cycle), then the lowest index. */
function nearestNeighbour(
  d: Float64Array,
  n: number,
  active: readonly number[],
  tip: number,
  previous: number | undefined,
): number {
  let nearest = previous ?? -1;
  let least = previous === undefined ? Infinity : d[tip * n + previous]!;
  for (const other of active) {
    if (other !== tip && (d[tip * n + other]! < least || nearest === -1)) {
      nearest = other;
      least = d[tip * n + other]!;
    }
  }
  return nearest;
}

/** Distances of every cluster to the union of two, stored under `left`. */
function lanceWilliams(
  d: Float64Array,
  n: number,
  active: readonly number[],
  sizes: Int32Array,
  left: number,
  right: number,
): void {
  const l = sizes[left]!, r = sizes[right]!;
  const between = d[left * n + right]!;
  for (const other of active) {
    if (other === left || other === right) continue;
    const o = sizes[other]!;
    const updated = ((l + o) * d[left * n + other]! + (r + o) * d[right * n + other]! - o * between) /
      (l + r + o);
    d[left * n + other] = d[other * n + left] = Math.max(0, updated);
  }
}

function cut(merges: readonly Merge[], n: number, clusters: number): number[] {
  const parent = Array.from({ length: n }, (_, i) => i);
  const root = (i: number): number => {
    while (parent[i] !== i) i = parent[i]!;
    return i;
  };
  const ascending = merges.map((merge, order) => ({ merge, order }))
    .sort((x, y) => x.merge.height - y.merge.height || x.order - y.order);
  for (const { merge } of ascending.slice(0, n - clusters)) parent[root(merge.right)] = root(merge.left);
  return parent.map((_, i) => root(i));
}
