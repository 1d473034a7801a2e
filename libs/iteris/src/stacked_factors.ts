import { concatRows, gemm, sliceRows, type Tensor } from "@lora-loom/tensor";

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

  /** The rows that belong to each factor, of a matrix with a row for each of theirs, `[Σr, n]`. */
  rowsOf(products: Tensor): Tensor[] {
    const ends = [...this.starts.slice(1), products.shape[0]!];
    return this.starts.map((start, index) => sliceRows(products, start, ends[index]!));
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}
