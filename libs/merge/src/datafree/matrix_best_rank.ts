import { symmetricEigen } from "@lora-loom/tensor";
import type { LargeMatrix } from "./large_matrix.ts";
import {
  combine,
  dot,
  firstRows,
  orthonormalAddition,
  products,
  row,
  type Rows,
  stack,
  transposed,
  zeroRows,
} from "./rows.ts";
import { gaussianRows } from "./gaussian_rows.ts";

/** The leading singular triplets of a matrix: D ≈ Σ σ[i] · left[i] right[i]ᵀ. */
export interface SingularTriplets {
  /** Descending. */
  readonly sigma: Float64Array<ArrayBuffer>;
  /** Unit vectors as long as D has rows. */
  readonly left: Rows;
  /** Unit vectors as long as D has columns. */
  readonly right: Rows;
}

/** The subspace is restarted from its best vectors when it holds this many blocks. */
const BLOCKS_BEFORE_RESTART = 8;
const MAX_STEPS = 60;

/**
 * The `k` largest singular triplets of a matrix D, by a block Krylov method: the space is enlarged by the
 * residuals of its best approximations (Rayleigh–Ritz) until those are accurate, and restarted from them when it
 * becomes too large (thick restart, Wu and Simon 2000). All small decisions are taken in float64.
 *
 * @param k at most min(rows, columns)
 * @param hints vectors as long as D has columns, near which the right singular vectors may lie; they only save time
 */
export async function leadingTriplets(
  matrix: LargeMatrix,
  k: number,
  hints: Rows,
  seed: number,
): Promise<SingularTriplets> {
  const { rows, columns } = matrix;
  const most = Math.min(rows, columns);
  const block = Math.min(most, k + Math.max(4, Math.ceil(k / 4)));
  let right = await rowSpaceBlock(matrix, startingBlock(hints, block, columns, seed));
  let images = await matrix.images(right);
  for (let step = 0;; step++) {
    const ritz = rayleighRitz(right, images);
    const best = firstTriplets(ritz, block);
    const pulledBack = await matrix.preimages(best.left);
    const residuals = residualRows(best, pulledBack);
    const worst = largestNorm(firstRows(residuals, Math.min(k, residuals.count)));
    const limit = matrix.residual * (best.sigma[0] ?? 0);
    if (worst <= limit || right.count >= most || step === MAX_STEPS) return firstTriplets(best, k);
    if (right.count + block > BLOCKS_BEFORE_RESTART * block) {
      const kept = firstTriplets(ritz, 2 * block);
      right = kept.right;
      images = scaledRows(kept.left, kept.sigma);
    }
    const added = orthonormalAddition(residuals, right);
    if (added.count === 0) return firstTriplets(best, k);
    right = stack([right, added], columns);
    images = stack([images, await matrix.images(added)], rows);
  }
}

/** Random combinations of the hints, filled up with random vectors. */
function startingBlock(hints: Rows, block: number, columns: number, seed: number): Rows {
  const mix = gaussianRows(block, hints.count, seed);
  const hinted = orthonormalAddition(combine(mix.data, block, hints), zeroRows(0, columns));
  const missing = block - hinted.count;
  const filled = orthonormalAddition(gaussianRows(missing, columns, seed + 1), hinted);
  return stack([hinted, filled], columns);
}

/** Moves a block into the row space of D, which the search then never leaves. */
async function rowSpaceBlock(matrix: LargeMatrix, vectors: Rows): Promise<Rows> {
  const images = await matrix.images(vectors);
  const orthonormal = orthonormalAddition(images, zeroRows(0, images.length));
  const pulledBack = await matrix.preimages(orthonormal);
  return orthonormalAddition(pulledBack, zeroRows(0, pulledBack.length));
}

/** The singular triplets of D restricted to the span of the orthonormal rows `right`, whose images are given. */
function rayleighRitz(right: Rows, images: Rows): SingularTriplets {
  const { values, vectors } = symmetricEigen(products(images, images), right.count);
  const sigma = values.map((value) => Math.sqrt(Math.max(0, value)));
  const left = combine(vectors, right.count, images);
  for (let i = 0; i < left.count; i++) {
    const vector = row(left, i);
    // The norm of the combined image is more accurate than the root of a small eigenvalue.
    const norm = Math.sqrt(dot(vector, vector));
    sigma[i] = norm;
    if (norm > 0) { for (let j = 0; j < vector.length; j++) vector[j]! /= norm; }
  }
  return { sigma, left, right: combine(vectors, right.count, right) };
}

function firstTriplets({ sigma, left, right }: SingularTriplets, count: number): SingularTriplets {
  const kept = Math.min(count, sigma.length);
  return { sigma: sigma.slice(0, kept), left: firstRows(left, kept), right: firstRows(right, kept) };
}

/** Dᵀu − σv of every triplet. */
function residualRows({ sigma, right }: SingularTriplets, pulledBack: Rows): Rows {
  const out: Rows = { ...pulledBack, data: pulledBack.data.slice() };
  for (let i = 0; i < out.count; i++) {
    const target = row(out, i), vector = row(right, i), value = sigma[i]!;
    for (let j = 0; j < target.length; j++) target[j]! -= value * vector[j]!;
  }
  return out;
}

function largestNorm(vectors: Rows): number {
  let largest = 0;
  for (let i = 0; i < vectors.count; i++) largest = Math.max(largest, dot(row(vectors, i), row(vectors, i)));
  return Math.sqrt(largest);
}

function scaledRows(vectors: Rows, factors: Float64Array): Rows {
  const out: Rows = { ...vectors, data: vectors.data.slice() };
  for (let i = 0; i < out.count; i++) {
    const target = row(out, i);
    for (let j = 0; j < target.length; j++) target[j]! *= factors[i]!;
  }
  return out;
}

/** Factors of the matrix that the triplets make, each taking √σ: `a` `[k, columns]`, `b` `[rows, k]`. */
export function balancedFactors(
  { sigma, left, right }: SingularTriplets,
): { a: Rows; b: Float64Array<ArrayBuffer> } {
  const roots = sigma.map(Math.sqrt);
  return { a: scaledRows(right, roots), b: transposed(scaledRows(left, roots)) };
}
