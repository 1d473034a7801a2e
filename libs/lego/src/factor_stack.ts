import {
  columnNorms,
  concatColumns,
  concatRows,
  type Device,
  gemm,
  gram,
  rowNorms,
  type Tensor,
} from "@lora-loom/tensor";
import { LegoError } from "./errors.ts";
import type { Combination, FactorEntries, PairNorms } from "./factor_entries.ts";
import { rowExtremes } from "./ops/row_extremes.ts";
import type { StackedFactors } from "./unit_pool.ts";

/** One adapter's factors of one module: its delta is scale · weight · b a. */
export interface AdapterFactors {
  /** A, `[r, in]`, f32. */
  readonly a: Tensor;
  /** B, `[out, r]`, f32, on the same device. */
  readonly b: Tensor;
  /** α / r, or α / √r for rsLoRA. */
  readonly scale: number;
  /** The user's weight. */
  readonly weight: number;
}

/** The factors of a merged module, f32 on the adapters' device: the delta is b a, with scale 1. */
export interface MergedFactors {
  /** A', `[rank, in]`. */
  readonly a: Tensor;
  /** B', `[out, rank]`. */
  readonly b: Tensor;
}

/** All adapters' factors of one module, stacked on their device. */
export class FactorStack implements FactorEntries, Disposable {
  readonly #device: Device;
  /** A, `[N, in]`. */
  readonly #a: Tensor;
  /** B, `[out, N]`. */
  readonly #b: Tensor;
  readonly #ranks: readonly number[];
  readonly #factors: readonly number[];

  /** @throws {LegoError} `no_adapters`, `shape_mismatch`, `not_finite` */
  constructor(adapters: readonly AdapterFactors[]) {
    checkAdapters(adapters);
    this.#device = adapters[0]!.a.device;
    this.#ranks = adapters.map(({ a }) => a.shape[0]!);
    this.#factors = adapters.map(({ scale, weight }) => scale * weight);
    this.#a = concatRows(adapters.map(({ a }) => a));
    this.#b = concatColumns(adapters.map(({ b }) => b));
  }

  /** N, the sum of the ranks. */
  get #stacked(): number {
    return this.#a.shape[0]!;
  }

  /**
   * Gram matrices, ranks and factors: what decisions are taken from.
   *
   * @throws {LegoError} `not_finite` when a factor holds NaN or values whose squares overflow
   */
  async describe(): Promise<StackedFactors> {
    using a = gram(this.#a, { of: "rows" });
    using b = gram(this.#b, { of: "columns" });
    const [gramA, gramB] = await Promise.all([this.#entries(a), this.#entries(b)]);
    checkGram(gramA, "A");
    checkGram(gramB, "B");
    return { gramA, gramB, ranks: this.#ranks, factors: this.#factors };
  }

  async largest(combination?: Combination): Promise<PairNorms> {
    if (!combination) return await this.#largest(this.#a, this.#b);
    using a = this.#combineA(combination);
    using b = this.#combineB(combination);
    return await this.#largest(a, b);
  }

  async signs(combination: Pick<Combination, "k" | "p">): Promise<number[]> {
    using a = this.#combineA(combination);
    using extremes = rowExtremes(a);
    const pairs = await this.#entries(extremes);
    return Array.from({ length: combination.k }, (_, i) => -pairs[2 * i]! > pairs[2 * i + 1]! ? -1 : 1);
  }

  /** A' = P A and B' = B Q. A combination of no pairs gives one pair of zeros, since a rank cannot be 0. */
  combine(combination: Combination): MergedFactors {
    if (combination.k > 0) return { a: this.#combineA(combination), b: this.#combineB(combination) };
    return { a: this.#device.zeros([1, this.#a.shape[1]!]), b: this.#device.zeros([this.#b.shape[0]!, 1]) };
  }

  [Symbol.dispose](): void {
    this.#a.dispose();
    this.#b.dispose();
  }

  #combineA({ k, p }: Pick<Combination, "k" | "p">): Tensor {
    using coefficients = this.#device.upload(p, [k, this.#stacked]);
    return gemm(coefficients, this.#a);
  }

  #combineB({ k, q }: Pick<Combination, "k" | "q">): Tensor {
    using coefficients = this.#device.upload(q, [this.#stacked, k]);
    return gemm(this.#b, coefficients);
  }

  async #largest(a: Tensor, b: Tensor): Promise<PairNorms> {
    using ofA = rowNorms(a, "inf");
    using ofB = columnNorms(b, "inf");
    const [normsA, normsB] = await Promise.all([this.#entries(ofA), this.#entries(ofB)]);
    return { a: normsA, b: normsB };
  }

  async #entries(tensor: Tensor): Promise<Float64Array<ArrayBuffer>> {
    return Float64Array.from(await this.#device.download(tensor));
  }
}

function checkGram(gramMatrix: Float64Array, name: string): void {
  if (gramMatrix.every(Number.isFinite)) return;
  throw new LegoError(
    "not_finite",
    `the Gram matrix of ${name} has infinite or NaN entries, expected finite ones`,
    `look for NaN, or values beyond 1e18, in the ${name} factors of the adapters`,
    name,
  );
}

function checkAdapters(adapters: readonly AdapterFactors[]): void {
  const first = adapters[0];
  if (!first) {
    throw new LegoError(
      "no_adapters",
      "found no adapter, expected at least one",
      "pass at least one adapter",
    );
  }
  const inputs = first.a.shape[1];
  const outputs = first.b.shape[0];
  adapters.forEach(({ a, b, scale, weight }, index) => {
    const where = `adapter ${index}`;
    const [rank, columns] = a.shape;
    const fits = a.shape.length === 2 && b.shape.length === 2 && rank! >= 1 && b.shape[1] === rank &&
      columns === inputs && b.shape[0] === outputs;
    if (!fits) {
      throw new LegoError(
        "shape_mismatch",
        `${where} has A [${a.shape}] and B [${b.shape}], expected [r, ${inputs}] and [${outputs}, r]`,
        "pass the factors of one module, all of the same base model",
        where,
      );
    }
    if (!Number.isFinite(scale * weight)) {
      throw new LegoError(
        "not_finite",
        `${where} has scale ${scale} and weight ${weight}, expected finite numbers`,
        "give it a finite weight and alpha",
        where,
      );
    }
  });
}
