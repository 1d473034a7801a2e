import { type Device, gemm, symmetricEigen, type Tensor } from "@lora-loom/tensor";

/** How rounding of a device enters: what is added to eigenvalues of a Gram matrix of unit vectors, and how often. */
interface Precision {
  /** Above the rounding of the Gram matrix. */
  readonly shift: number;
  readonly shiftedPasses: number;
  /** Eigenvalues below this, after the shifted passes, belong to directions that the vectors do not have. */
  readonly drop: number;
}

const FLOAT64: Precision = { shift: 1e-13, shiftedPasses: 1, drop: 1e-8 };
const FLOAT32: Precision = { shift: 1e-5, shiftedPasses: 2, drop: 1e-3 };

/**
 * Orthonormal rows that span the rows of X, `[ρ, d]` with ρ ≤ n, by shifted Gram passes: each divides the eigendirections of
 * X Xᵀ by √(λ + shift), which brings their lengths together until a plain pass is safe (shifted Cholesky QR; Fukaya,
 * Kannan, Nakatsukasa, Yamamoto, Yanagisawa 2020, here with eigenvectors, so that X may be singular). Only n × n matrices
 * leave the device. Directions of X below about 1e-7 (GPU) or 1e-10 (CPU) of its rows' lengths are left out.
 *
 * @param vectors `[n, d]`; stays alive
 */
export async function orthonormalRowBasis(vectors: Tensor): Promise<Tensor> {
  const { device } = vectors;
  const { shift, shiftedPasses, drop } = device.info.backend === "cpu" ? FLOAT64 : FLOAT32;
  let current = await pass(vectors, { shift, drop: 0, equilibrate: true });
  for (let done = 1; done < shiftedPasses; done++) {
    current = await replaced(current, { shift, drop: 0, equilibrate: false });
  }
  current = await replaced(current, { shift: 0, drop, equilibrate: false });
  // What survived although it was rounding has no direction of its own: its second norm tells.
  return await replaced(current, { shift: 0, drop: 0.5, equilibrate: false });
}

interface PassOptions {
  readonly shift: number;
  readonly drop: number;
  /** Bring the rows to unit length first, so that small ones are not lost. */
  readonly equilibrate: boolean;
}

async function replaced(vectors: Tensor, options: PassOptions): Promise<Tensor> {
  using old = vectors;
  return await pass(old, options);
}

async function pass(vectors: Tensor, { shift, drop, equilibrate }: PassOptions): Promise<Tensor> {
  const { device } = vectors;
  const n = vectors.shape[0]!;
  const gram = await gramOf(device, vectors);
  const lengths = Float64Array.from({ length: n }, (_, i) => equilibrate ? Math.sqrt(gram[i * n + i]!) : 1);
  const factors = lengths.map((length) => length > 0 ? 1 / length : 0);
  const { values, vectors: directions } = symmetricEigen(
    gram.map((value, index) => value * factors[Math.floor(index / n)]! * factors[index % n]!),
    n,
  );
  const largest = values[0]!;
  const kept = Array.from(values.keys()).filter((i) => values[i]! > drop * largest && values[i]! + shift > 0);
  // A zero stack has no direction; one zero row stands for it, since a tensor cannot be empty.
  const rows = Math.max(1, kept.length);
  const change = new Float64Array(rows * n);
  kept.forEach((from, to) => {
    const root = Math.sqrt(Math.max(0, values[from]!) + shift * largest);
    if (root === 0) return;
    for (let j = 0; j < n; j++) change[to * n + j] = factors[j]! * directions[from * n + j]! / root;
  });
  using matrix = device.upload(change, [rows, n]);
  return gemm(matrix, vectors);
}

async function gramOf(device: Device, vectors: Tensor): Promise<Float64Array> {
  using gram = gemm(vectors, vectors, { transposeB: true });
  return Float64Array.from(await device.download(gram));
}
