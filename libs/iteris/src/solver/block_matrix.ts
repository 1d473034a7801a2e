import {
  type CholeskyFactor,
  concatRows,
  type Device,
  factorCholesky,
  gemm,
  multiply,
  sliceRows,
  solveCholesky,
  solveTriangular,
  type Tensor,
} from "@lora-loom/tensor";
import { accumulate, copyTo, multiple, rowDots } from "../algebra.ts";
import { shiftDiagonal, withRidge } from "../ops/add_to_diagonal.ts";

/** A symmetric matrix of square blocks along the diagonal, zero elsewhere. Owns its blocks. */
export class BlockMatrix implements Disposable {
  constructor(readonly blocks: readonly Tensor[]) {}

  /** Rows, and columns. */
  get size(): number {
    return this.blocks.reduce((sum, block) => sum + block.shape[0]!, 0);
  }

  /** this · x, `[size, n]`. */
  times(x: Tensor): Tensor {
    return blockwise(this.blocks, x, matrixSize, (block, rows) => gemm(block, rows));
  }

  /**
   * Whether it is the identity, to rounding.
   *
   * @param roundoff of the device that made it
   */
  async isIdentity(roundoff: number): Promise<boolean> {
    for (const block of this.blocks) {
      const size = block.shape[0]!;
      const values = await block.device.download(block);
      const off = (value: number, i: number) =>
        Math.abs(value - (i % (size + 1) === 0 ? 1 : 0)) > 4 * roundoff;
      if ((values as Float64Array).some(off)) return false;
    }
    return true;
  }

  async on(device: Device): Promise<BlockMatrix> {
    const copies: Tensor[] = [];
    for (const block of this.blocks) copies.push(await copyTo(device, block));
    return new BlockMatrix(copies);
  }

  [Symbol.dispose](): void {
    for (const block of this.blocks) block.dispose();
  }
}

/** The Cholesky factors of a block matrix: M = L Lᵀ. */
export class BlockFactor implements Disposable {
  private constructor(readonly factors: readonly CholeskyFactor[]) {}

  static async of({ blocks }: BlockMatrix): Promise<BlockFactor> {
    const factors: CholeskyFactor[] = [];
    try {
      for (const block of blocks) {
        using owned = multiple(block, 1);
        factors.push(await factorCholesky(owned));
      }
    } catch (error) {
      for (const factor of factors) factor[Symbol.dispose]();
      throw error;
    }
    return new BlockFactor(factors);
  }

  /** Lᵀ x */
  transposedTimes(x: Tensor): Tensor {
    return blockwise(
      this.factors,
      x,
      factorSize,
      ({ lower }, rows) => gemm(lower, rows, { transposeA: true }),
    );
  }

  /** L^-T x */
  transposedSolve(x: Tensor): Tensor {
    return blockwise(
      this.factors,
      x,
      factorSize,
      (factor, rows) => solveTriangular(factor, rows, { side: "left", transpose: true }),
    );
  }

  /** M⁻¹ */
  inverse(): BlockMatrix {
    return new BlockMatrix(this.factors.map((factor) => {
      using identity = identityOf(factor.lower.device, factor.lower.shape[0]!);
      return solveCholesky(factor, identity, { side: "left" });
    }));
  }

  [Symbol.dispose](): void {
    for (const factor of this.factors) factor[Symbol.dispose]();
  }
}

/**
 * F̂ = (1 − γ) F + γ I with F scaled to the trace of the identity; the identity itself where F is zero.
 *
 * @param blocks of F; they stay the caller's
 */
export async function dampedMetric(blocks: readonly Tensor[], gamma: number): Promise<BlockMatrix> {
  let trace = 0;
  for (const block of blocks) trace += await traceOf(block);
  const size = blocks.reduce((sum, block) => sum + block.shape[0]!, 0);
  const factor = trace > 0 && Number.isFinite(trace) ? (1 - gamma) * size / trace : 0;
  return new BlockMatrix(blocks.map((block) => withRidge(block, factor, factor > 0 ? gamma : 1)));
}

/** Σ weight_i · M_i over matrices of the same blocks. */
export function combination(matrices: readonly BlockMatrix[], weights: readonly number[]): BlockMatrix {
  return new BlockMatrix(matrices[0]!.blocks.map((first, index) => {
    const sum = multiple(first, weights[0]!);
    matrices.slice(1).forEach(({ blocks }, i) => accumulate(sum, blocks[index]!, weights[i + 1]!));
    return sum;
  }));
}

async function traceOf(block: Tensor): Promise<number> {
  using identity = identityOf(block.device, block.shape[0]!);
  using diagonal = multiply(block, identity, { into: identity });
  return (await rowDots(diagonal, diagonal)).reduce((sum, square) => sum + Math.sqrt(square), 0);
}

/** I, `[size, size]` */
export function identityOf(device: Device, size: number): Tensor {
  const identity = device.zeros([size, size]);
  shiftDiagonal(identity, 1);
  return identity;
}

/** Applies each block, or what stands for it, to its rows of `x`. */
function blockwise<Block>(
  blocks: readonly Block[],
  x: Tensor,
  sizeOf: (block: Block) => number,
  apply: (block: Block, rows: Tensor) => Tensor,
): Tensor {
  if (blocks.length === 1) return apply(blocks[0]!, x);
  using owned = new DisposableStack();
  let first = 0;
  return concatRows(blocks.map((block) => {
    const rows = owned.use(sliceRows(x, first, first += sizeOf(block)));
    return owned.use(apply(block, rows));
  }));
}

function matrixSize(block: Tensor): number {
  return block.shape[0]!;
}

function factorSize({ lower }: CholeskyFactor): number {
  return lower.shape[0]!;
}
