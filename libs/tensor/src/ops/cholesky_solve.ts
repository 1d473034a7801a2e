import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { wholeMatrix } from "../gpu/matrix_view.ts";
import { triangularSolve } from "../linalg/mod.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape, requireF32 } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import type { TriangularFactor } from "./cholesky.ts";
import { copy } from "./copy.ts";
import { PRODUCT_KERNELS } from "./matrix_product.ts";
import { queueTriangularSolve } from "./triangular_blocks.ts";

/** Options of {@linkcode solveTriangular}. */
export interface TriangularSolveOptions {
  /** Solve with Lᵀ in place of L. Default false. */
  readonly transpose?: boolean;
  /** `left`: L X = B with B `[n, m]`, one right-hand side a column; `right`: X L = B with B `[m, n]`, one a row. Default `left`. */
  readonly side?: "left" | "right";
}

function check(factor: TriangularFactor, b: Tensor, side: "left" | "right"): number {
  const n = factor.lower.shape[0]!;
  const [rows, columns] = matrixShape(b, "solveTriangular");
  requireF32([b], "solveTriangular");
  if ((side === "left" ? rows : columns) === n) return n;
  throw new TensorError(
    "shape_mismatch",
    `solveTriangular got right-hand sides of shape [${b.shape}] for a factor of size ${n} on the ${side}`,
    side === "left" ? "pass one right-hand side a column, [n, m]" : "pass one right-hand side a row, [m, n]",
    "solveTriangular",
  );
}

function queueSolve(
  device: GpuDevice,
  factor: TriangularFactor,
  b: Tensor,
  { transpose = false, side = "left" }: TriangularSolveOptions,
): Tensor {
  const n = check(factor, b, side);
  const x = device.empty(b.shape);
  using used = copy(b);
  const triangle = { lower: wholeMatrix(factor.lower, "solveTriangular"), inverses: factor.inverses! };
  if (n > 0) {
    const unknowns = {
      rest: wholeMatrix(used, "solveTriangular"),
      solved: wholeMatrix(x, "solveTriangular"),
    };
    queueTriangularSolve(device, triangle, unknowns, { transpose, side }, [0, n]);
  }
  return x;
}

function computeSolve(
  device: CpuDevice,
  factor: TriangularFactor,
  b: Tensor,
  { transpose = false, side = "left" }: TriangularSolveOptions,
): Tensor {
  const n = check(factor, b, side);
  const lower = (factor.lower as CpuTensor).floats;
  const data = (b as CpuTensor).floats;
  if (side === "left") {
    return device.wrap(triangularSolve(lower, n, data, b.shape[1]!, { transpose }), b.shape);
  }
  // X L = B is Lᵀ Xᵀ = Bᵀ.
  const m = b.shape[0]!;
  const turned = triangularSolve(lower, n, transposed(data, m, n), m, { transpose: !transpose });
  return device.wrap(transposed(turned, n, m), b.shape);
}

function transposed(x: Float64Array, rows: number, columns: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: x.length }, (_, i) => x[(i % rows) * columns + Math.floor(i / rows)]!);
}

const solve = defineOperation<[Tensor, TriangularFactor, Tensor, TriangularSolveOptions], Tensor>({
  name: "solveTriangular",
  kernels: PRODUCT_KERNELS,
  gpu: (device, _, factor, b, options) => queueSolve(device, factor, b, options),
  cpu: (device, _, factor, b, options) => computeSolve(device, factor, b, options),
});

/**
 * Solves with the triangular factor L of a {@linkcode TriangularFactor}, for many right-hand sides at once; a new tensor of the
 * shape of `b`.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export function solveTriangular(
  factor: TriangularFactor,
  b: Tensor,
  options: TriangularSolveOptions = {},
): Tensor {
  return solve(factor.lower, factor, b, options);
}

/**
 * Solves A X = B (`side: "left"`, B `[n, m]`) or X A = B (`side: "right"`, B `[m, n]`) for the factored A = L Lᵀ.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export function solveCholesky(
  factor: TriangularFactor,
  b: Tensor,
  { side = "left" }: Pick<TriangularSolveOptions, "side"> = {},
): Tensor {
  // A X = L (Lᵀ X) on the left; X A = (X L) Lᵀ on the right, where the outer factor is Lᵀ.
  using half = solveTriangular(factor, b, { side, transpose: side === "right" });
  return solveTriangular(factor, half, { side, transpose: side === "left" });
}
