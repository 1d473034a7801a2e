import {
  blockRows,
  concatColumns,
  concatRows,
  copy,
  type Device,
  factorCholesky,
  invertTriangular,
  maxAbs,
  multiplyBlocks,
  reshape,
  sliceColumns,
  sliceRows,
  type Tensor,
} from "@lora-loom/tensor";
import { copyTo, stackRows, weightedSum } from "../algebra.ts";
import { shiftDiagonal, withRidge } from "../ops/add_to_diagonal.ts";
import { diagonalOf } from "../ops/diagonal_of.ts";
import { Scalars } from "../scalars.ts";

/** A symmetric matrix of square blocks along the diagonal, zero elsewhere. */
export class BlockMatrix implements Disposable {
  /** @param blocks one below the other, `[out, size]`; the last may have fewer rows, with zeros behind its columns. Owned. */
  constructor(readonly blocks: Tensor) {}

  /** this · x, `[out, n]`, added to `into` where given; it is its own transpose. */
  times(x: Tensor, into?: Tensor): Tensor {
    return multiplyBlocks(this.blocks, x, into ? { into, beta: 1 } : {});
  }

  async on(device: Device): Promise<BlockMatrix> {
    return new BlockMatrix(await copyTo(device, this.blocks));
  }

  [Symbol.dispose](): void {
    this.blocks.dispose();
  }
}

/**
 * Whether all of the matrices are the identity, to rounding. Waits once.
 *
 * @param roundoff of the device that made them
 */
export async function areIdentities(matrices: readonly BlockMatrix[], roundoff: number): Promise<boolean> {
  using scalars = new Scalars();
  const off: number[] = [];
  for (const { blocks } of matrices) {
    using rest = withRidge(blocks, 1, -1);
    scalars.add(maxAbs(rest), (most) => off.push(most));
  }
  await scalars.settle();
  return off.every((most) => most <= 4 * roundoff);
}

/** The Cholesky factors of a block matrix: M = L Lᵀ. */
export class BlockFactor implements Disposable {
  /** L and its inverse, as blocks. */
  private constructor(private readonly lower: Tensor, private readonly inverseOfLower: Tensor) {}

  /**
   * Factors all blocks before it waits for any.
   *
   * @throws {TensorError} `not_positive_definite`
   */
  static async of({ blocks }: BlockMatrix): Promise<BlockFactor> {
    const [rows, size] = blocks.shape as [number, number];
    const ranges = blockRows(rows, size);
    const attempts = await Promise.allSettled(ranges.map(async ([first, end]) => {
      using square = squareOf(blocks, first, end);
      return await factorCholesky(square, { overwrite: true });
    }));
    using owned = new DisposableStack();
    for (const attempt of attempts) if (attempt.status === "fulfilled") owned.use(attempt.value);
    const factors = attempts.map((attempt) => {
      if (attempt.status === "rejected") throw attempt.reason;
      return attempt.value;
    });
    const lowers = factors.map(({ lower }) => paddedTo(size, copy(lower)));
    const inverses = factors.map((factor) => paddedTo(size, invertTriangular(factor)));
    return new BlockFactor(stackRows(lowers), stackRows(inverses));
  }

  /** Lᵀ x */
  transposedTimes(x: Tensor): Tensor {
    return multiplyBlocks(this.lower, x);
  }

  /** L^-T x */
  transposedSolve(x: Tensor): Tensor {
    return multiplyBlocks(this.inverseOfLower, x);
  }

  /** M⁻¹ = L^-T L⁻¹ */
  inverse(): BlockMatrix {
    return new BlockMatrix(this.transposedSolve(this.inverseOfLower));
  }

  [Symbol.dispose](): void {
    this.lower.dispose();
    this.inverseOfLower.dispose();
  }
}

/**
 * F̂_i = (1 − γ) F_i + γ I with F_i scaled to the trace of the identity; the identity itself where F_i is zero. Waits once for all of them.
 *
 * @param metrics blocks of each F_i, `[out, size]`, of the same shape; they stay the caller's
 */
export async function dampedMetrics(metrics: readonly Tensor[], gamma: number): Promise<BlockMatrix[]> {
  const traces = await tracesOf(metrics);
  return metrics.map((blocks, i) => {
    const trace = traces[i]!;
    const factor = trace > 0 && Number.isFinite(trace) ? (1 - gamma) * blocks.shape[0]! / trace : 0;
    return new BlockMatrix(withRidge(blocks, factor, factor > 0 ? gamma : 1));
  });
}

/** Σ weight_i · M_i over matrices of the same blocks. */
export function combination(matrices: readonly BlockMatrix[], weights: readonly number[]): BlockMatrix {
  return new BlockMatrix(weightedSum(matrices.map(({ blocks }) => blocks), weights)!);
}

async function tracesOf(metrics: readonly Tensor[]): Promise<number[]> {
  const rows = metrics[0]!.shape[0]!;
  using owned = new DisposableStack();
  const diagonals = metrics.map((blocks) => {
    const diagonal = owned.use(diagonalOf(blocks));
    return owned.use(reshape(diagonal, [1, rows]));
  });
  using together = concatRows(diagonals);
  const values = Float64Array.from(await together.device.download(together));
  return metrics.map((_, i) =>
    values.subarray(i * rows, (i + 1) * rows).reduce((sum, value) => sum + value, 0)
  );
}

/** The block in rows [first, end). */
function squareOf(blocks: Tensor, first: number, end: number): Tensor {
  const size = blocks.shape[1]!;
  const rows = sliceRows(blocks, first, end);
  if (end - first === size) return rows;
  using wide = rows;
  return sliceColumns(wide, 0, end - first);
}

/** A square block with zeros behind its columns, `[order, size]`; takes the block over. */
function paddedTo(size: number, square: Tensor): Tensor {
  const order = square.shape[0]!;
  if (order === size) return square;
  using owned = square;
  using zeros = square.device.zeros([order, size - order]);
  return concatColumns([owned, zeros]);
}

/** I, `[size, size]` */
export function identityOf(device: Device, size: number): Tensor {
  const identity = device.zeros([size, size]);
  shiftDiagonal(identity, 1);
  return identity;
}
