import { type Device, gemm, type Tensor } from "@lora-loom/tensor";
import { frobeniusNorm, frobeniusNorms, plus } from "./algebra.ts";
import type { Activations } from "./base_model.ts";
import type { Moments } from "./equations.ts";
import { IterisError } from "./errors.ts";
import { type Precision, ProductSum } from "./product_sum.ts";

/** One batch of a task before a stage: as the task's own adapter brings it there, and as the merged model does. */
export interface Pair {
  readonly expert: Activations;
  /** The same object as `expert` where nothing is merged yet. */
  readonly merged: Activations;
  /** The diagonal of D_i, but for a factor that the whole task shares, `[tokens]`. */
  readonly weights: Tensor;
}

/** How to sum. */
export interface SummationOptions {
  /** Whether to sum the stream's part. */
  readonly withStream: boolean;
  readonly precision: Precision;
  /** What the weights of the batches have to be multiplied by to give D_i. */
  readonly factor: number;
  /** A_i by module, where the equations need the drift only as A_i (C_i − S_i) and by its norm. */
  readonly factors: ReadonlyMap<string, Tensor>;
}

/**
 * What a stage has to know of one task, summed over its tokens and shared by the stage's modules. With X_i and X̃_i the inputs,
 * H_i and H̃_i the residual streams, of expert and merged model, and D_i the token weights.
 */
export class TaskStatistics implements Disposable {
  /** S_i = X̃ᵢᵀ D_i X̃ᵢ, `[in, in]`. */
  readonly #own: ProductSum;
  /** C_i − S_i = (X_i − X̃ᵢ)ᵀ D_i X̃ᵢ, `[in, in]`. Summed as a difference, so that nothing cancels. */
  readonly #drift: ProductSum;
  /** A_i (C_i − S_i), `[r, in]`, with A_i. */
  readonly #driftOfFactors: ReadonlyMap<string, { readonly a: Tensor; readonly sum: ProductSum }>;
  /** (H_i − H̃ᵢ)ᵀ D_i X̃ᵢ, `[hidden, in]`. */
  readonly #stream: ProductSum;
  readonly #withStream: boolean;

  constructor({ withStream, precision, factor, factors }: SummationOptions) {
    this.#withStream = withStream;
    this.#own = new ProductSum(precision, factor);
    this.#drift = new ProductSum(precision, factor, factors.size > 0 ? "f16" : "f32");
    this.#driftOfFactors = new Map(
      [...factors].map(([module, a]) => [module, { a, sum: new ProductSum(precision, factor) }]),
    );
    this.#stream = new ProductSum(precision, factor);
  }

  /** Adds the tokens of one batch. */
  add({ expert, merged, weights }: Pair): void {
    this.#own.add(merged.input, merged.input, weights);
    if (expert === merged) return;
    using drift = plus(expert.input, merged.input, -1);
    this.#drift.add(drift, merged.input, weights);
    for (const { a, sum } of this.#driftOfFactors.values()) {
      using rows = gemm(drift, a, { transposeB: true });
      sum.add(rows, merged.input, weights);
    }
    if (!this.#withStream) return;
    using streamDrift = plus(expert.stream, merged.stream, -1);
    this.#stream.add(streamDrift, merged.input, weights);
  }

  /**
   * The sums on the device where the stage is solved, with their norms; the caller's to dispose.
   *
   * @param task and `stage` for errors
   * @throws {IterisError} `not_finite_activations`
   */
  async momentsOn(device: Device, task: string, stage: string): Promise<Moments> {
    using owned = new DisposableStack();
    const taken = async (sum: ProductSum) => {
      const tensor = await sum.on(device);
      return tensor && owned.use(tensor);
    };
    const sums = {
      own: (await taken(this.#own))!,
      drift: await taken(this.#drift),
      stream: await taken(this.#stream),
    };
    const driftOfFactors = new Map<string, Tensor>();
    for (const [module, { sum }] of this.#driftOfFactors) {
      const product = await taken(sum);
      if (product) driftOfFactors.set(module, product);
    }
    const moments = { ...sums, driftOfFactors, ...await normsOf(sums.own, sums.drift) };
    if (!Number.isFinite(moments.ownNorm + moments.crossNorm)) throw notFinite(task, stage);
    owned.move();
    return moments;
  }

  [Symbol.dispose](): void {
    const ofFactors = [...this.#driftOfFactors.values()].map(({ sum }) => sum);
    for (const sum of [this.#own, this.#drift, this.#stream, ...ofFactors]) sum[Symbol.dispose]();
  }
}

/** The moments of two sets of samples together. */
export async function sumOfMoments(x: Moments, y: Moments): Promise<Moments> {
  const own = plus(x.own, y.own);
  const drift = x.drift && y.drift && plus(x.drift, y.drift);
  const stream = x.stream && y.stream && plus(x.stream, y.stream);
  const driftOfFactors = new Map(
    [...x.driftOfFactors].flatMap(([module, product]) => {
      const other = y.driftOfFactors.get(module);
      return other ? [[module, plus(product, other)] as const] : [];
    }),
  );
  return { own, drift, stream, driftOfFactors, ...await normsOf(own, drift) };
}

/** Releases the sums. */
export function disposeMoments({ own, drift, stream, driftOfFactors }: Moments): void {
  for (const tensor of [own, drift, stream, ...driftOfFactors.values()]) tensor?.dispose();
}

/** n_i = ‖S_i‖_F and k_i = ‖C_i‖_F. */
async function normsOf(
  own: Tensor,
  drift: Tensor | undefined,
): Promise<Pick<Moments, "ownNorm" | "crossNorm">> {
  if (!drift) {
    const norm = await frobeniusNorm(own);
    return { ownNorm: norm, crossNorm: norm };
  }
  using cross = plus(own, drift);
  const [ownNorm, crossNorm] = await frobeniusNorms(own, cross);
  return { ownNorm, crossNorm };
}

function notFinite(task: string, stage: string): IterisError {
  return new IterisError(
    "not_finite_activations",
    `the inputs of ${stage} contain NaN or infinity on the samples of ${task}`,
    "check the adapter and the base model for NaN weights, and that they belong together",
    `${task}, ${stage}`,
  );
}
