import { concatRows, gemm, sliceRows, type Tensor } from "@lora-loom/tensor";
import { copyTo } from "./algebra.ts";

/**
 * Narrow factors `[r, in]` of modules that read the same input, one below the other: one product serves them all, because reading the
 * inputs is what it costs.
 */
export class StackedFactors implements Disposable {
  readonly #stack: Tensor;
  /** Where each factor begins: its first row here, its first column in products. */
  readonly starts: readonly number[];

  /** @param factors at least one; they stay the caller's */
  constructor(factors: readonly Tensor[]) {
    this.#stack = concatRows(factors);
    let end = 0;
    this.starts = factors.map(({ shape: [rows] }) => (end += rows!) - rows!);
  }

  /** rows · Fᵀ of all factors F, side by side, `[tokens, Σr]`. */
  of(rows: Tensor): Tensor {
    return gemm(rows, this.#stack, { transposeB: true });
  }

  /**
   * F · matrix of each factor F, `[r, n]`, on the device of the matrix.
   *
   * @param sums what is added to the products, `[Σr, n]`; used up
   */
  async times(matrix: Tensor, sums: Tensor | undefined): Promise<Tensor[]> {
    using stack = await copyTo(matrix.device, this.#stack);
    using products = gemm(stack, matrix, sums ? { into: sums, beta: 1 } : {});
    const ends = [...this.starts.slice(1), products.shape[0]!];
    return this.starts.map((start, index) => sliceRows(products, start, ends[index]!));
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}
