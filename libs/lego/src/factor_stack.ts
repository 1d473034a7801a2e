import { type Device, gemm, type Tensor } from "@lora-loom/tensor";
import { transposed } from "./dense.ts";
import { LegoError } from "./errors.ts";
import type { Combination, Extremes, FactorEntries } from "./extremes.ts";
import { rowExtremes } from "./ops/row_extremes.ts";
import { stackRows } from "./ops/stack_rows.ts";
import { stackTransposed } from "./ops/stack_transposed.ts";
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
  /** Bᵀ, `[N, out]`. */
  readonly #b: Tensor;
  readonly #ranks: readonly number[];
  readonly #factors: readonly number[];

  /** @throws {LegoError} `no_adapters`, `shape_mismatch`, `not_finite` */
  constructor(adapters: readonly AdapterFactors[]) {
    checkAdapters(adapters);
    this.#device = adapters[0]!.a.device;
    this.#ranks = adapters.map(({ a }) => a.shape[0]!);
    this.#factors = adapters.map(({ scale, weight }) => scale * weight);
    this.#a = stackRows(adapters.map(({ a }) => a));
    this.#b = stackTransposed(adapters.map(({ b }) => b));
  }

  /**
   * Gram matrices, ranks and factors: what decisions are taken from.
   *
   * @throws {LegoError} `not_finite` when a factor holds NaN or values whose squares overflow
   */
  async describe(): Promise<StackedFactors> {
    const [gramA, gramB] = await Promise.all([this.#gram(this.#a, "A"), this.#gram(this.#b, "B")]);
    return { gramA, gramB, ranks: this.#ranks, factors: this.#factors };
  }

  async stack(): Promise<Extremes> {
    return await this.#extremes(this.#a, this.#b);
  }

  async combination({ k, p, q }: Combination): Promise<Extremes> {
    using pDevice = this.#device.upload(p, [k, this.#a.shape[0]!]);
    using qDevice = this.#device.upload(transposed(q, this.#a.shape[0]!, k), [k, this.#a.shape[0]!]);
    using a = gemm(pDevice, this.#a);
    using b = gemm(qDevice, this.#b);
    return await this.#extremes(a, b);
  }

  /** A' = P A and B' = B Q. A combination of no pairs gives one pair of zeros, since a rank cannot be 0. */
  combine({ k, p, q }: Combination): MergedFactors {
    const [stacked, inputs] = this.#a.shape as [number, number];
    if (k === 0) return { a: this.#device.zeros([1, inputs]), b: this.#device.zeros([this.#b.shape[1]!, 1]) };
    using pDevice = this.#device.upload(p, [k, stacked]);
    using qDevice = this.#device.upload(q, [stacked, k]);
    return { a: gemm(pDevice, this.#a), b: gemm(this.#b, qDevice, { transposeA: true }) };
  }

  [Symbol.dispose](): void {
    this.#a.dispose();
    this.#b.dispose();
  }

  async #gram(rows: Tensor, name: string): Promise<Float64Array<ArrayBuffer>> {
    using gram = gemm(rows, rows, { transposeB: true });
    const entries = Float64Array.from(await this.#device.download(gram));
    if (entries.every(Number.isFinite)) return entries;
    throw new LegoError(
      "not_finite",
      `the Gram matrix of ${name} has infinite or NaN entries, expected finite ones`,
      `look for NaN, or values beyond 1e18, in the ${name} factors of the adapters`,
      name,
    );
  }

  async #extremes(a: Tensor, b: Tensor): Promise<Extremes> {
    using ofA = rowExtremes(a);
    using ofB = rowExtremes(b);
    const [pairsA, pairsB] = await Promise.all([this.#device.download(ofA), this.#device.download(ofB)]);
    return { aMin: every(pairsA, 0), aMax: every(pairsA, 1), bMin: every(pairsB, 0), bMax: every(pairsB, 1) };
  }
}

/** Every other number, from the first or the second on. */
function every(pairs: ArrayLike<number>, offset: 0 | 1): number[] {
  return Array.from({ length: pairs.length / 2 }, (_, i) => pairs[2 * i + offset]!);
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
