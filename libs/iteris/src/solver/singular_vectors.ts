import { type CpuDevice, type CpuTensor, gemm, symmetricEigen, type Tensor } from "@lora-loom/tensor";

/** Squared singular values below this part of the largest are rounding. */
const NOISE = 1e-14;

/**
 * The `rank` leading left singular vectors of `z` `[m, n]` as columns, `[m, rank]`; fewer where `z` has fewer dimensions.
 */
export function leadingLeftVectors(z: Tensor, rank: number): Promise<Tensor> {
  return Promise.resolve(onHost(z as CpuTensor, rank));
}

/** By the eigenvectors of the smaller of Z Zᵀ and Zᵀ Z, in float64. */
function onHost(z: CpuTensor, rank: number): Tensor {
  const [m, n] = z.shape as [number, number];
  const wide = m <= n;
  using gram = gemm(z, z, wide ? { transposeB: true } : { transposeA: true }) as CpuTensor;
  const { values, vectors } = symmetricEigen(gram.floats, Math.min(m, n));
  const kept = Math.max(values.subarray(0, rank).filter((value) => value > NOISE * values[0]!).length, 1);
  if (wide) return columnsOf(z.device, vectors, kept, m);

  // U = Z V Σ⁻¹
  const scaledVectors = vectors.slice(0, kept * n).map((x, i) => x / Math.sqrt(values[Math.floor(i / n)]!));
  using right = z.device.wrap(scaledVectors, [kept, n]);
  return gemm(z, right, { transposeB: true });
}

/** The first `count` of the rows `vectors` as columns, `[length, count]`. */
function columnsOf(device: CpuDevice, vectors: Float64Array, count: number, length: number): Tensor {
  const columns = new Float64Array(length * count);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < length; j++) columns[j * count + i] = vectors[i * length + j]!;
  }
  return device.wrap(columns, [length, count]);
}
