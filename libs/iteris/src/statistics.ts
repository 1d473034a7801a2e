import { type Device, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import { plus } from "./algebra.ts";
import type { Activations } from "./base_model.ts";
import type { Moments } from "./equations.ts";
import { type Precision, ProductSum } from "./product_sum.ts";
import type { Scalars } from "./scalars.ts";
import type { StackedFactors } from "./stacked_factors.ts";

/** One batch of a task before a stage: as the task's own adapter brings it there, and as the merged model does. */
export interface Pair {
  readonly expert: Activations;
  /** The same object as `expert` where nothing is merged yet. */
  readonly merged: Activations;
  /** The diagonal of D_i, but for a factor that the whole task shares, `[tokens]`; absent where all of it is 1. */
  readonly weights: Tensor | undefined;
}

/** A_i of a task at the sites of a stage that it adapts. */
export interface TaskFactors {
  readonly modules: readonly string[];
  readonly stack: StackedFactors;
}

/** How to sum. */
export interface SummationOptions {
  /** Whether to sum the stream's part. */
  readonly withStream: boolean;
  /** Whether to sum what λ_i can be taken from. */
  readonly withExpert: boolean;
  readonly precision: Precision;
  /** What the weights of the batches have to be multiplied by to give D_i. */
  readonly factor: number;
  /** Given where the equations need the drift only as A_i (C_i − S_i) and by its norm. The caller's. */
  readonly factors: TaskFactors | undefined;
}

/**
 * What a stage has to know of one task, summed over its tokens and shared by the stage's modules. With X_i and X̃_i the inputs,
 * H_i and H̃_i the residual streams, of expert and merged model, and D_i the token weights.
 */
export class TaskStatistics implements Disposable {
  readonly #options: SummationOptions;
  /** S_i = X̃ᵢᵀ D_i X̃ᵢ, `[in, in]`. */
  readonly #own: ProductSum;
  /** C_i − S_i = (X_i − X̃ᵢ)ᵀ D_i X̃ᵢ, `[in, in]`. Summed as a difference, so that nothing cancels. */
  readonly #drift: ProductSum;
  /** A_i (C_i − S_i) of all factors, `[Σr, in]`. */
  readonly #driftOfFactors: ProductSum;
  /** (H_i − H̃ᵢ)ᵀ D_i X̃ᵢ, `[hidden, in]`. */
  readonly #stream: ProductSum;
  /** X_iᵀ D_i X_i, `[in, in]`, where X_i is not X̃_i. */
  readonly #expert: ProductSum;

  constructor(options: SummationOptions) {
    const { precision, factor, factors } = options;
    this.#options = options;
    this.#own = new ProductSum(precision, factor);
    this.#drift = new ProductSum(precision, factor, factors ? "f16" : "f32");
    this.#driftOfFactors = new ProductSum(precision, factor);
    this.#stream = new ProductSum(precision, factor);
    this.#expert = new ProductSum("single", factor, "f16");
  }

  /** Adds the tokens of one batch. */
  add({ expert, merged, weights }: Pair): void {
    const { factors, withStream, withExpert } = this.#options;
    this.#own.add(merged.input, merged.input, weights);
    if (expert === merged) return;
    if (withExpert) this.#expert.add(expert.input, expert.input, weights);
    using drift = plus(expert.input, merged.input, -1);
    this.#drift.add(drift, merged.input, weights);
    if (factors) {
      using rows = factors.stack.of(drift);
      this.#driftOfFactors.add(rows, merged.input, weights);
    }
    if (!withStream) return;
    using streamDrift = plus(expert.stream, merged.stream, -1);
    this.#stream.add(streamDrift, merged.input, weights);
  }

  /** X_iᵀ D_i X_i, rounded, as `sum` times `factor`, `withExpert`; nothing where nothing was added. `sum` stays this object's. */
  get expertGram(): ProductSum["rounded"] {
    return this.#expert.rounded ?? this.#own.rounded;
  }

  /**
   * Hands the sums over, on the device where the stage is solved; the caller's to dispose. Their norms are known once the scalars are
   * settled.
   */
  async takeMomentsTo(device: Device, scalars: Scalars): Promise<Moments> {
    using owned = new DisposableStack();
    const taken = async (sum: ProductSum) => {
      const tensor = await sum.takeTo(device);
      return tensor && owned.use(tensor);
    };
    const own = (await taken(this.#own))!;
    const drift = await taken(this.#drift);
    const stream = await taken(this.#stream);
    const { factors } = this.#options;
    const ofFactors = await factors?.stack.times(own, await this.#driftOfFactors.takeTo(device)) ?? [];
    const crossOfFactors = new Map(ofFactors.map((product, index) => [factors!.modules[index]!, product]));
    owned.move();
    return withNorms({ own, drift, stream, crossOfFactors }, scalars);
  }

  [Symbol.dispose](): void {
    for (const sum of [this.#own, this.#drift, this.#driftOfFactors, this.#stream, this.#expert]) {
      sum[Symbol.dispose]();
    }
  }
}

/** The moments of two sets of samples together. Their norms are known once the scalars are settled. */
export function sumOfMoments(x: Moments, y: Moments, scalars: Scalars): Moments {
  const own = plus(x.own, y.own);
  const drift = x.drift && y.drift && plus(x.drift, y.drift);
  const stream = x.stream && y.stream && plus(x.stream, y.stream);
  const crossOfFactors = new Map(
    [...x.crossOfFactors].flatMap(([module, product]) => {
      const other = y.crossOfFactors.get(module);
      return other ? [[module, plus(product, other)] as const] : [];
    }),
  );
  return withNorms({ own, drift, stream, crossOfFactors }, scalars);
}

/** Releases the sums. */
export function disposeMoments({ own, drift, stream, crossOfFactors }: Moments): void {
  for (const tensor of [own, drift, stream, ...crossOfFactors.values()]) tensor?.dispose();
}

/** Adds n_i = ‖S_i‖_F and k_i = ‖C_i‖_F, NaN until the scalars are settled. */
function withNorms(sums: Omit<Moments, "ownNorm" | "crossNorm">, scalars: Scalars): Moments {
  const { own, drift } = sums;
  const moments = { ...sums, ownNorm: NaN, crossNorm: NaN };
  scalars.add(sumOfSquares(own), (squares) => {
    moments.ownNorm = Math.sqrt(squares);
    if (!drift) moments.crossNorm = moments.ownNorm;
  });
  if (drift) {
    using cross = plus(own, drift);
    scalars.add(sumOfSquares(cross), (squares) => moments.crossNorm = Math.sqrt(squares));
  }
  return moments;
}
