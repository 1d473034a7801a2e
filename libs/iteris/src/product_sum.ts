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
   * @param products whether a GPU may round factors to 11 bits, for sums of which no more than a norm is used
   */
  constructor(
    readonly precision: Precision,
    readonly factor: number,
    readonly products: "f32" | "f16" = "f32",
  ) {}

  /** Adds one batch, `[tokens, m]` and `[tokens, n]` with weights `[tokens]`, 1 where absent. The same tensor twice gives a symmetric sum. */
  add(x: Tensor, y: Tensor, weights?: Tensor): void {
    if (this.precision === "single") return this.#addInSingle(x, y, weights);
    using ones = weights ? undefined : onesFor(x);
    this.#addInDouble(x, y, weights ?? ones!);
  }

  #addInDouble(x: Tensor, y: Tensor, weights: Tensor): void {
    const shape = [x.shape[1]!, y.shape[1]!];
    this.#high ??= x.device.zeros(shape);
    this.#low ??= x.device.zeros(shape);
    accumulateProducts(x, y, weights, this.#high, this.#low);
  }

  #addInSingle(x: Tensor, y: Tensor, weights: Tensor | undefined): void {
    const { factor: alpha, products: precision } = this;
    const options = { alpha, precision, ...this.#high ? { into: this.#high, beta: 1 } : {} };
    this.#high = x === y
      ? gram(x, { of: "columns", ...weights && { rowWeights: weights }, ...options })
      : gemm(x, y, { transposeA: true, ...weights && { innerWeights: weights }, ...options });
  }

  /** The sum so far, rounded, as `sum` times `factor`; `sum` stays this object's. Nothing where nothing was added. */
  get rounded(): { readonly sum: Tensor; readonly factor: number } | undefined {
    if (!this.#high) return undefined;
    return { sum: this.#high, factor: this.precision === "double" ? this.factor : 1 };
  }

  /**
   * Hands the sum `[m, n]` over, on `device`, which is its own or the CPU; the caller's to dispose. Nothing where nothing was added. What is
   * added afterwards begins a new sum.
   */
  async takeTo(device: Device): Promise<Tensor | undefined> {
    const [high, low] = [this.#high, this.#low];
    this.#high = this.#low = undefined;
    if (!high) return undefined;
    using rest = low;
    const { factor } = this;
    if (device === high.device) {
      return rest ? add(high, rest, { alpha: factor, beta: factor, into: high }) : high;
    }
    using first = high;
    const copied = await copyTo(device, first);
    if (!rest) return copied;
    using second = await copyTo(device, rest);
    return add(copied, second, { alpha: factor, beta: factor, into: copied });
  }

  [Symbol.dispose](): void {
    this.#high?.dispose();
    this.#low?.dispose();
  }
}

/** 1 for each row. */
function onesFor({ device, shape: [rows] }: Tensor): Tensor {
  return device.upload(new Float64Array(rows!).fill(1), [rows!]);
}
