/**
 * Plain k-means on raw vectors, as a user of LoRA-LEGO would run it from a textbook: k-means++ starts, Lloyd's iteration
 * until nothing moves, the best of several starts. It is what the benchmark compares with, so it is written with care:
 * float32 vectors in one array, squared distances through ‖x‖² − 2⟨x, μ⟩ + ‖μ‖², four products at a time.
 */

/** Points as rows of one array. */
export interface Points {
  readonly values: Float32Array;
  readonly count: number;
  readonly dimensions: number;
}

/** A finished clustering. */
export interface KMeansResult {
  readonly inertia: number;
  readonly labels: Int32Array;
  /** Iterations of all starts together. */
  readonly iterations: number;
}

const MAX_ITERATIONS = 300;

function dot(x: Float32Array, xStart: number, y: Float32Array, yStart: number, length: number): number {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  let i = 0;
  for (; i + 3 < length; i += 4) {
    s0 += x[xStart + i]! * y[yStart + i]!;
    s1 += x[xStart + i + 1]! * y[yStart + i + 1]!;
    s2 += x[xStart + i + 2]! * y[yStart + i + 2]!;
    s3 += x[xStart + i + 3]! * y[yStart + i + 3]!;
  }
  for (; i < length; i++) s0 += x[xStart + i]! * y[yStart + i]!;
  return s0 + s1 + s2 + s3;
}

function squaredNorms(values: Float32Array, count: number, dimensions: number): Float64Array {
  return Float64Array.from(
    { length: count },
    (_, i) => dot(values, i * dimensions, values, i * dimensions, dimensions),
  );
}

/** Copies k points as centroids, each far from those before (Arthur and Vassilvitskii 2007). */
function plusPlus(
  { values, count, dimensions }: Points,
  norms: Float64Array,
  k: number,
  random: () => number,
): Float32Array {
  const centroids = new Float32Array(k * dimensions);
  const nearest = new Float64Array(count).fill(Infinity);
  let chosen = Math.floor(random() * count);
  for (let c = 0; c < k; c++) {
    centroids.set(values.subarray(chosen * dimensions, (chosen + 1) * dimensions), c * dimensions);
    let total = 0;
    for (let i = 0; i < count; i++) {
      const inner = dot(values, i * dimensions, centroids, c * dimensions, dimensions);
      nearest[i] = Math.min(nearest[i]!, Math.max(0, norms[i]! - 2 * inner + norms[chosen]!));
      total += nearest[i]!;
    }
    let target = random() * total;
    chosen = count - 1;
    for (let i = 0; i < count; i++) {
      target -= nearest[i]!;
      if (target <= 0) {
        chosen = i;
        break;
      }
    }
  }
  return centroids;
}

/** Gives each point its nearest centroid; says how many changed, and the inertia. */
function assign(points: Points, norms: Float64Array, centroids: Float32Array, k: number, labels: Int32Array) {
  const { values, count, dimensions } = points;
  const centroidNorms = squaredNorms(centroids, k, dimensions);
  let moved = 0;
  let inertia = 0;
  for (let i = 0; i < count; i++) {
    let best = 0;
    let bestDistance = Infinity;
    for (let c = 0; c < k; c++) {
      const distance = centroidNorms[c]! -
        2 * dot(values, i * dimensions, centroids, c * dimensions, dimensions);
      if (distance < bestDistance) [best, bestDistance] = [c, distance];
    }
    if (labels[i] !== best) moved++;
    labels[i] = best;
    inertia += Math.max(0, norms[i]! + bestDistance);
  }
  return { moved, inertia };
}

/** Replaces centroids by the means of their points; an empty cluster keeps its old one. */
function update(
  { values, count, dimensions }: Points,
  labels: Int32Array,
  centroids: Float32Array,
  k: number,
): void {
  const sizes = new Int32Array(k);
  for (let i = 0; i < count; i++) sizes[labels[i]!]!++;
  for (let c = 0; c < k; c++) if (sizes[c]! > 0) centroids.fill(0, c * dimensions, (c + 1) * dimensions);
  for (let i = 0; i < count; i++) {
    const target = labels[i]! * dimensions;
    const weight = 1 / sizes[labels[i]!]!;
    for (let d = 0; d < dimensions; d++) centroids[target + d]! += weight * values[i * dimensions + d]!;
  }
}

/** The best of `restarts` starts. */
export function kMeans(points: Points, k: number, restarts: number, random: () => number): KMeansResult {
  const norms = squaredNorms(points.values, points.count, points.dimensions);
  let best: Pick<KMeansResult, "inertia" | "labels"> = { inertia: Infinity, labels: new Int32Array(0) };
  let iterations = 0;
  for (let start = 0; start < restarts; start++) {
    const centroids = plusPlus(points, norms, k, random);
    const labels = new Int32Array(points.count).fill(-1);
    let inertia = Infinity;
    for (let iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
      iterations++;
      const step = assign(points, norms, centroids, k, labels);
      inertia = step.inertia;
      if (step.moved === 0) break;
      update(points, labels, centroids, k);
    }
    if (inertia < best.inertia) best = { inertia, labels };
  }
  return { ...best, iterations };
}
