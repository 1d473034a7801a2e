import { add, type Device, gemm, gram, type Tensor } from "@lora-loom/tensor";
import { copyTo } from "./algebra.ts";
import { accumulateProducts } from "./ops/accumulate_products.ts";

/** In what sums over tokens are kept on a GPU: `single` is f32, `double` a pair of f32. */
export type Precision = "single" | "double";

/** A running sum factor · Σ Xᵀ diag(weights) Y over batches. */
export class ProductSum implements Disposable {
  #high: Tensor | undefined;
  #low: Tensor | undefined;

  /**
   * @param factor what the sum is multiplied by; apart from the weights, so that these can be 1, which rounds nothing
   * @param products whether a GPU may round factors to 11 bits, for sums of which no more than the norm is used
   */
  constructor(
    readonly precision: Precision,
    readonly factor: number,
    readonly products: "f32" | "f16" = "f32",
  ) {}

  /** Adds one batch, `[tokens, m]` and `[tokens, n]` with weights `[tokens]`. The same tensor twice gives a symmetric sum. */
  add(x: Tensor, y: Tensor, weights: Tensor): void {
    if (this.precision === "double") this.#addInDouble(x, y, weights);
    else this.#addInSingle(x, y, weights);
  }

  #addInDouble(x: Tensor, y: Tensor, weights: Tensor): void {
    const shape = [x.shape[1]!, y.shape[1]!];
    this.#high ??= x.device.zeros(shape);
    this.#low ??= x.device.zeros(shape);
    accumulateProducts(x, y, weights, this.#high, this.#low);
  }

  #addInSingle(x: Tensor, y: Tensor, weights: Tensor): void {
    const into = this.#high ? { into: this.#high, beta: 1 } : {};
    if (x === y) {
      this.#high = gram(x, { of: "columns", rowWeights: weights, alpha: this.factor, ...into });
      return;
    }
    const { factor: alpha, products: precision } = this;
    this.#high = gemm(x, y, { transposeA: true, innerWeights: weights, alpha, precision, ...into });
  }

  /** The sum `[m, n]` on `device`, which is its own or the CPU; the caller's to dispose. Nothing where nothing was added. */
  async on(device: Device): Promise<Tensor | undefined> {
    const [high, low] = [this.#high, this.#low];
    if (!high) return undefined;
    if (!low) return device === high.device ? add(high, high, { beta: 0 }) : await copyTo(device, high);
    if (device === high.device) return add(high, low, { alpha: this.factor, beta: this.factor });
    using first = await copyTo(device, high);
    using second = await copyTo(device, low);
    return add(first, second, { alpha: this.factor, beta: this.factor });
  }

  [Symbol.dispose](): void {
    this.#high?.dispose();
    this.#low?.dispose();
  }
}
