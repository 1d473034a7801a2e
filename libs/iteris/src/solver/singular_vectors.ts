import { gemm, gram, symmetricEigen, type Tensor, transpose } from "@lora-loom/tensor";
import { squaredNorm } from "../algebra.ts";

/** Up to this size, a symmetric eigenproblem is solved in full on the CPU. */
const EIGEN_LIMIT = 384;
/** Squared singular values below this part of the largest are rounding: of float64 sums, of f32 sums. */
const HOST_NOISE = 1e-14;
const DEVICE_NOISE = 1e-12;
/** Columns beyond the rank asked for, which speed up subspace iteration. */
const OVERSAMPLING = 16;
const MOST_ITERATIONS = 30;
/** Subspace iteration ends when a step raises the captured part of ‖Z‖² by less than this. */
const ENOUGH = 1e-6;

/**
 * The `rank` leading left singular vectors of `z` `[m, n]` as columns, `[m, rank]`; fewer where `z` has fewer dimensions. Exact
 * to rounding where one side of `z` is small; otherwise by subspace iteration, which captures all but about 1e-6 of what they do.
 *
 * @param eigenLimit the smaller side up to which the eigenproblem is solved in full
 */
export async function leadingLeftVectors(z: Tensor, rank: number, eigenLimit = EIGEN_LIMIT): Promise<Tensor> {
  const [m, n] = z.shape as [number, number];
  const energy = await squaredNorm(z);
  if (energy === 0) {
    return z.device.upload(Float64Array.from({ length: m }, (_, i) => i === 0 ? 1 : 0), [m, 1]);
  }
  // Subspace iteration needs room for its extra columns.
  if (Math.min(m, n) <= Math.max(eigenLimit, rank + OVERSAMPLING)) return await byEigenvectors(z, rank);
  return await bySubspaceIteration(z, rank, energy);
}

/** By the eigenvectors of the smaller of Z Zᵀ and Zᵀ Z, in float64. */
async function byEigenvectors(z: Tensor, rank: number): Promise<Tensor> {
  const [m, n] = z.shape as [number, number];
  const size = Math.min(m, n);
  using products = gram(z, { of: m <= n ? "rows" : "columns" });
  const { values, vectors } = symmetricEigen(await float64Of(products), size);
  const noise = z.device.info.backend === "cpu" ? HOST_NOISE : DEVICE_NOISE;
  const kept = Math.max(values.subarray(0, rank).filter((value) => value > noise * values[0]!).length, 1);
  if (m <= n) {
    using rows = z.device.upload(vectors.slice(0, kept * m), [kept, m]);
    return transpose(rows);
  }
  // U = Z V Σ⁻¹
  const scaled = vectors.slice(0, kept * n).map((x, i) => x / Math.sqrt(values[Math.floor(i / n)]! || 1));
  using right = z.device.upload(scaled, [kept, n]);
  return gemm(z, right, { transposeB: true });
}

/** By orthogonal iteration with Z Zᵀ from a fixed start (Halko, Martinsson & Tropp 2011, algorithm 4.4). */
async function bySubspaceIteration(z: Tensor, rank: number, total: number): Promise<Tensor> {
  const [m, n] = z.shape as [number, number];
  const columns = Math.min(rank + OVERSAMPLING, m, n);
  using start = z.device.upload(fixedStart(n, columns), [n, columns]);
  using image = gemm(z, start);
  let basis = await orthonormalised(image);
  let captured = 0;
  for (let iteration = 0; iteration < MOST_ITERATIONS; iteration++) {
    using projected = gemm(z, basis, { transposeA: true });
    const energy = await squaredNorm(projected);
    if (energy - captured <= ENOUGH * total) break;
    captured = energy;
    using right = await orthonormalised(projected);
    using next = gemm(z, right);
    basis.dispose();
    basis = await orthonormalised(next);
  }
  using whole = basis;
  return await leadingWithin(whole, z, rank);
}

/** Rotates an orthonormal basis to the singular vectors within it, and keeps the first `rank`. */
async function leadingWithin(basis: Tensor, z: Tensor, rank: number): Promise<Tensor> {
  using projected = gemm(basis, z, { transposeA: true });
  using rotation = await leadingLeftVectors(projected, rank, projected.shape[0]!);
  return gemm(basis, rotation);
}

/** An orthonormal basis of the columns of `x`, by its Gram matrix, twice for orthogonality to rounding. */
async function orthonormalised(x: Tensor): Promise<Tensor> {
  using once = await whitened(x);
  return await whitened(once);
}

/** X V Λ^-½ for XᵀX = V Λ Vᵀ, after scaling the columns alike; directions that are rounding are dropped. */
async function whitened(x: Tensor): Promise<Tensor> {
  const columns = x.shape[1]!;
  using products = gram(x, { of: "columns" });
  const gramMatrix = await float64Of(products);
  const scales = Float64Array.from(
    { length: columns },
    (_, i) => 1 / (Math.sqrt(gramMatrix[i * columns + i]!) || 1),
  );
  const scaled = gramMatrix.map((value, i) =>
    value * scales[Math.floor(i / columns)]! * scales[i % columns]!
  );
  const { values, vectors } = symmetricEigen(scaled, columns);
  const kept = values.filter((value) => value > DEVICE_NOISE * columns * values[0]!).length;
  const transform = Float64Array.from({ length: kept * columns }, (_, i) => {
    return vectors[i]! * scales[i % columns]! / Math.sqrt(values[Math.floor(i / columns)]!);
  });
  using rows = x.device.upload(transform, [kept, columns]);
  return gemm(x, rows, { transposeB: true });
}

/** Columns without structure; the same ones every time. */
function fixedStart(rows: number, columns: number): Float64Array<ArrayBuffer> {
  let state = 1;
  return Float64Array.from({ length: rows * columns }, () => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0;
    return state / 2 ** 31 - 1;
  });
}

async function float64Of(tensor: Tensor): Promise<Float64Array<ArrayBuffer>> {
  return Float64Array.from(await tensor.device.download(tensor));
}
