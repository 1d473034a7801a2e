import {
  cholesky,
  concatColumns,
  type Device,
  gemm,
  sliceColumns,
  sliceRows,
  type Tensor,
  TensorError,
  triangularSolve,
} from "@lora-loom/tensor";

/** Rows and columns of a tile: its factorisation, in float64 on the CPU, has to be quick beside the products on the GPU. */
export const TILE = 256;

/**
 * The Cholesky factor of a symmetric positive definite matrix in f32, in square tiles that lie on the device one by one. Right-looking:
 * each diagonal tile is factored and inverted in float64 on the CPU, so everything else is products of tiles.
 */
export class TiledCholesky implements Disposable {
  /** L_ij for j < i. */
  readonly #lower: Tensor[][] = [];
  /** L_jj⁻¹. */
  readonly #inverses: Tensor[] = [];
  /** The smallest pivot, as a square root: a bound of how near to singular the matrix is. */
  smallestPivot = Infinity;

  private constructor(readonly device: Device, readonly size: number, readonly tile: number) {}

  /**
   * Factors `matrix` + diag(`diagonal`), `[n, n]`.
   *
   * @throws {TensorError} `not_positive_definite`
   */
  static async factor(matrix: Tensor, diagonal: Float64Array, tile = TILE): Promise<TiledCholesky> {
    const factor = new TiledCholesky(matrix.device, matrix.shape[0]!, tile);
    try {
      await factor.#factorTiles(factor.#cut(matrix), diagonal);
      return factor;
    } catch (error) {
      factor[Symbol.dispose]();
      throw error;
    }
  }

  /** rows · L^-T, `[m, n]`. */
  forward(rows: Tensor): Tensor {
    const done: Tensor[] = [];
    for (const [j, part] of this.#columns(rows).entries()) {
      for (const [k, known] of done.entries()) subtractProduct(part, known, this.#lower[j]![k]!, true);
      done.push(gemm(part, this.#inverses[j]!, { transposeB: true }));
      part.dispose();
    }
    return joined(done);
  }

  /** rows · L⁻¹, `[m, n]`. */
  backward(rows: Tensor): Tensor {
    const parts = this.#columns(rows);
    for (let j = parts.length - 1; j >= 0; j--) {
      const solved = gemm(parts[j]!, this.#inverses[j]!);
      parts[j]!.dispose();
      parts[j] = solved;
      for (let k = 0; k < j; k++) subtractProduct(parts[k]!, solved, this.#lower[j]![k]!, false);
    }
    return joined(parts);
  }

  /** rows · (L Lᵀ)⁻¹, `[m, n]`. */
  solve(rows: Tensor): Tensor {
    using half = this.forward(rows);
    return this.backward(half);
  }

  [Symbol.dispose](): void {
    for (const tensor of [...this.#lower.flat(), ...this.#inverses]) tensor.dispose();
  }

  get #count(): number {
    return Math.ceil(this.size / this.tile);
  }

  /** First and one past the last row of a tile. */
  #range(index: number): [start: number, end: number] {
    return [index * this.tile, Math.min((index + 1) * this.tile, this.size)];
  }

  #columns(rows: Tensor): Tensor[] {
    return Array.from({ length: this.#count }, (_, j) => sliceColumns(rows, ...this.#range(j)));
  }

  /** The tiles on and below the diagonal. */
  #cut(matrix: Tensor): Tensor[][] {
    return Array.from({ length: this.#count }, (_, i) => {
      using rows = sliceRows(matrix, ...this.#range(i));
      return Array.from({ length: i + 1 }, (_, j) => sliceColumns(rows, ...this.#range(j)));
    });
  }

  async #factorTiles(tiles: Tensor[][], diagonal: Float64Array): Promise<void> {
    for (let i = 0; i < tiles.length; i++) this.#lower.push([]);
    try {
      for (let j = 0; j < tiles.length; j++) {
        const inverse = await this.#invertDiagonal(tiles[j]![j]!, diagonal.subarray(...this.#range(j)));
        this.#inverses.push(inverse);
        for (let i = j + 1; i < tiles.length; i++) {
          using tile = tiles[i]![j]!;
          this.#lower[i]!.push(gemm(tile, inverse, { transposeB: true }));
        }
        for (let i = j + 1; i < tiles.length; i++) {
          for (let k = j + 1; k <= i; k++) {
            subtractProduct(tiles[i]![k]!, this.#lower[i]![j]!, this.#lower[k]![j]!, true);
          }
        }
      }
    } finally {
      for (const tile of tiles.flat()) tile.dispose();
    }
  }

  /** L⁻¹ of a diagonal tile L Lᵀ. */
  async #invertDiagonal(tile: Tensor, diagonal: Float64Array): Promise<Tensor> {
    const size = tile.shape[0]!;
    const values = Float64Array.from(await this.device.download(tile));
    for (let i = 0; i < size; i++) values[i * size + i]! += diagonal[i]!;
    const lower = cholesky(values, size);
    const identity = new Float64Array(size * size);
    for (let i = 0; i < size; i++) {
      identity[i * size + i] = 1;
      this.smallestPivot = Math.min(this.smallestPivot, lower[i * size + i]!);
    }
    return this.device.upload(triangularSolve(lower, size, identity, size), [size, size]);
  }
}

/** into −= x·y, or x·yᵀ. */
function subtractProduct(into: Tensor, x: Tensor, y: Tensor, transposeB: boolean): void {
  gemm(x, y, { transposeB, alpha: -1, beta: 1, into });
}

function joined(parts: readonly Tensor[]): Tensor {
  const whole = concatColumns(parts);
  for (const part of parts) part.dispose();
  return whole;
}

/** Whether an error means that a matrix could not be factored. */
export function isNotPositiveDefinite(error: unknown): boolean {
  return error instanceof TensorError && error.code === "not_positive_definite";
}
