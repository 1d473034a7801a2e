import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { block, forEachRowWindow, type MatrixView, wholeMatrix, windowOf } from "../gpu/matrix_view.ts";
import { CHOLESKY_DIAGONAL_SERIAL, CLEAR_ABOVE_DIAGONAL, CLEARED_BLOCK } from "../kernels/cholesky.ts";
import { WIDE_BLOCK } from "../kernels/cholesky_block.ts";
import { cholesky } from "../linalg/mod.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape, requireF32 } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { PANEL_KERNELS, queueFactorByPanels } from "./cholesky_panels.ts";
import { copy } from "./copy.ts";
import { PRODUCT_KERNELS, queueProduct } from "./matrix_product.ts";
import { queueCopyRectangle } from "./rectangles.ts";
import {
  type BlockedTriangle,
  blockSize,
  copyOf,
  halves,
  inverseOf,
  queueTriangularSolve,
  type Range,
} from "./triangular_blocks.ts";
import { queueWiderInverses } from "./triangular_inverse.ts";

/** Inverses of larger blocks cost more to make than they save in the few solves that most factors are made for. */
const WIDEST_SOLVING_BLOCK = 2048;

/** What solving with a factor takes. */
export interface TriangularFactor {
  /** L, `[n, n]`, zero above the diagonal. */
  readonly lower: Tensor;
  /** On a GPU, `[⌈n / block⌉, pitch, block]`: the inverses of the diagonal blocks of L, which turn solving into products. */
  readonly inverses: Tensor | undefined;
}

/** A symmetric positive definite matrix A = L Lᵀ, factored. Dispose it after its last use. */
export interface CholeskyFactor extends TriangularFactor, Disposable {
  /** The pivots, that is the squares of the diagonal of L; how small they get says how near to singular A is. */
  readonly pivots: Float64Array<ArrayBuffer>;
}

/** A factor whose pivots are on their way: what is computed with it meanwhile is in vain where they say so. */
export interface StartedFactor extends TriangularFactor, Disposable {
  /** Those of {@linkcode CholeskyFactor}; rejects with `not_positive_definite`. */
  readonly pivots: Promise<Float64Array<ArrayBuffer>>;
}

/** Options of {@linkcode factorCholesky}. */
export interface CholeskyOptions {
  /** Factor in the memory of `a`, whose values are lost, instead of a copy. `a` may be disposed before the factor or after it. Default false. */
  readonly overwrite?: boolean;
}

function squareSize(a: Tensor): number {
  const [rows, columns] = matrixShape(a, "factorCholesky");
  requireF32([a], "factorCholesky");
  if (rows === columns) return rows;
  throw new TensorError(
    "shape_mismatch",
    `factorCholesky got shape [${a.shape}]`,
    "pass a square, symmetric matrix",
    "factorCholesky",
  );
}

/** Factors the rows and columns of `range` in place: one half, the block below it, then what that leaves of the other half. */
function queueFactor(device: GpuDevice, triangle: BlockedTriangle, pivots: Tensor, range: Range): void {
  const { lower, inverses } = triangle;
  const parts = halves(range, inverses.shape[2]!);
  if (!parts) {
    const { window, base } = windowOf(device, block(lower, range, range));
    const inverse = inverseOf(inverses, range);
    device.dispatch(
      CHOLESKY_DIAGONAL_SERIAL,
      [window, inverses, pivots],
      [inverse.rows, lower.stride, base, inverse.offset, range[0]],
      [1],
    );
    return;
  }
  const [first, second] = parts;
  queueFactor(device, triangle, pivots, first);
  // The block below is solved in a copy, because a dispatch cannot read one part of a buffer and write another.
  using below = copyOf(device, block(lower, second, first));
  using solved = device.empty(below.shape);
  const panel = wholeMatrix(solved, "factorCholesky");
  const unknowns = { rest: wholeMatrix(below, "factorCholesky"), solved: panel };
  queueTriangularSolve(device, triangle, unknowns, { side: "right", transpose: true }, first, first[0]);
  queueCopyRectangle(device, panel, block(lower, second, first));
  const rest = block(lower, second, second);
  queueProduct(device, {
    a: panel,
    b: panel,
    c: rest,
    transposeB: true,
    alpha: -1,
    beta: 1,
    lowerOnly: true,
  });
  queueFactor(device, triangle, pivots, second);
}

function queueClearing(device: GpuDevice, lower: MatrixView): void {
  forEachRowWindow(device, lower, "factorCholesky", (rows, rowStart) => {
    const { window, base } = windowOf(device, rows);
    const grid = [
      Math.ceil(rows.columns / CLEARED_BLOCK.columns),
      Math.ceil(rows.rows / CLEARED_BLOCK.rows),
    ] as const;
    device.dispatch(CLEAR_ABOVE_DIAGONAL, [window], [rows.rows, rows.columns, base, rowStart], grid);
  });
}

/** A factor on a GPU whose pivots nobody has looked at yet, with anything above the diagonal: enough to solve with it. */
export interface QueuedFactor extends TriangularFactor, Disposable {
  /** `[n]` */
  readonly pivots: Tensor;
}

/** Queues a factorisation; {@linkcode checkedPivots} says whether it succeeded. */
export function queueCholesky(
  device: GpuDevice,
  a: Tensor,
  { overwrite = false }: CholeskyOptions = {},
): QueuedFactor {
  const n = squareSize(a);
  const lower = overwrite ? device.share(a, a.shape) : copy(a);
  const size = blockSize(device, n);
  const narrow = device.empty([Math.ceil(n / size), size, size]);
  const pivots = device.empty([n]);
  const whole = wholeMatrix(lower, "factorCholesky");
  const triangle = { lower: whole, inverses: narrow };
  if (size === WIDE_BLOCK) queueFactorByPanels(device, triangle, pivots);
  else if (n > 0) queueFactor(device, triangle, pivots, [0, n]);
  const wider = size === WIDE_BLOCK ? solvingBlock(n) : size;
  const inverses = wider > size ? queueWiderInverses(device, triangle, wider) : narrow;
  if (inverses !== narrow) narrow.dispose();
  const dispose = () => [lower, inverses, pivots].forEach((tensor) => tensor.dispose());
  return { lower, inverses, pivots, [Symbol.dispose]: dispose };
}

/**
 * Pivots that were read back, if the factorisation succeeded.
 *
 * @throws {TensorError} `not_positive_definite`
 */
export function checkedPivots(found: ArrayLike<number>): Float64Array<ArrayBuffer> {
  const pivots = Float64Array.from(found);
  const index = pivots.findIndex((pivot) => !(pivot > 0 && pivot < Infinity));
  if (index >= 0) throw notPositiveDefinite(index, pivots[index]!);
  return pivots;
}

function startOnGpu(device: GpuDevice, a: Tensor, options: CholeskyOptions): StartedFactor {
  const { pivots, ...factor } = queueCholesky(device, a, options);
  queueClearing(device, wholeMatrix(factor.lower, "factorCholesky"));
  const checked = device.download(pivots).then(checkedPivots);
  checked.catch(() => {}); // the caller's to await; must not count as unhandled meanwhile
  return { ...factor, pivots: checked };
}

/**
 * Rows of the inverted diagonal blocks that solve with a factor on hardware: about a quarter of it, so that solving takes few products
 * one after the other, each with many workgroups.
 */
function solvingBlock(n: number): number {
  let size = WIDE_BLOCK;
  while (2 * size <= Math.min(n / 4, WIDEST_SOLVING_BLOCK)) size *= 2;
  return size;
}

function notPositiveDefinite(index: number, pivot: number): TensorError {
  return new TensorError(
    "not_positive_definite",
    `pivot ${index} is ${pivot}, expected a positive number`,
    "add a larger multiple of the identity, or scale the matrix to a unit diagonal first",
    "factorCholesky",
  );
}

function startOnCpu(device: CpuDevice, a: Tensor): StartedFactor {
  const n = squareSize(a);
  const data = cholesky((a as CpuTensor).floats, n);
  const lower = device.wrap(data, [n, n]);
  return {
    lower,
    inverses: undefined,
    pivots: Promise.resolve(Float64Array.from({ length: n }, (_, i) => data[i * n + i]! ** 2)),
    [Symbol.dispose]: () => lower.dispose(),
  };
}

/** Every kernel of the factorisation, for the registry. */
export const CHOLESKY_KERNELS: readonly Kernel[] = [
  CHOLESKY_DIAGONAL_SERIAL,
  ...PANEL_KERNELS,
  CLEAR_ABOVE_DIAGONAL,
  ...PRODUCT_KERNELS,
];

const operation = defineOperation<[Tensor, CholeskyOptions], StartedFactor>({
  name: "factorCholesky",
  kernels: CHOLESKY_KERNELS,
  gpu: startOnGpu,
  cpu: startOnCpu,
});

/**
 * Cholesky factorisation A = L Lᵀ of a symmetric positive definite matrix, `[n, n]`, of which only the lower triangle is read. In
 * f32 on a GPU, where the relative error of A − L Lᵀ is about n · 6e-8; scale A to a unit diagonal first, and refine solutions.
 *
 * @throws {TensorError} `not_positive_definite` with the index of the pivot, `shape_mismatch`, `dtype_mismatch`
 */
export async function factorCholesky(a: Tensor, options: CholeskyOptions = {}): Promise<CholeskyFactor> {
  const started = operation(a, options);
  try {
    return { ...started, pivots: await started.pivots };
  } catch (error) {
    started[Symbol.dispose]();
    throw error;
  }
}

/**
 * The same without waiting, so that a GPU can go on with what the factor is for.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`; on the CPU `not_positive_definite` at once
 */
export function startCholesky(a: Tensor, options: CholeskyOptions = {}): StartedFactor {
  return operation(a, options);
}
