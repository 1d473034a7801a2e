import { gemm, gram, scaleRows, type Tensor } from "@lora-loom/tensor";
import { frobeniusNorm, plus } from "./algebra.ts";
import type { Activations } from "./base_model.ts";
import { IterisError } from "./errors.ts";

/** One batch of a task before a stage: as the task's own adapter brings it there, and as the merged model does. */
export interface Pair {
  readonly expert: Activations;
  /** The same object as `expert` where nothing is merged yet. */
  readonly merged: Activations;
  /** The diagonal of D_i, `[tokens]`. */
  readonly weights: Tensor;
}

/**
 * What a stage has to know of one task, summed over its tokens and shared by the stage's modules. With X_i and X̃_i the inputs,
 * H_i and H̃_i the residual streams, of expert and merged model, and D_i the token weights.
 */
export class TaskStatistics implements Disposable {
  /** S_i = X̃ᵢᵀ D_i X̃ᵢ, `[in, in]`. */
  #own: Tensor | undefined;
  /** C_i − S_i = (X_i − X̃ᵢ)ᵀ D_i X̃ᵢ, `[in, in]`; absent where X̃ᵢ is X_i. Summed as a difference, so that nothing cancels. */
  #drift: Tensor | undefined;
  /** (H_i − H̃ᵢ)ᵀ D_i X̃ᵢ, `[hidden, in]`; absent where nobody asked for it or H̃ᵢ is H_i. */
  #stream: Tensor | undefined;

  /** @param withStream whether to sum the stream's part */
  constructor(readonly withStream: boolean) {}

  /** S_i, `[in, in]`. */
  get own(): Tensor {
    return this.#own!;
  }

  /** C_i − S_i, `[in, in]`, or nothing where it is zero. */
  get drift(): Tensor | undefined {
    return this.#drift;
  }

  /** (H_i − H̃ᵢ)ᵀ D_i X̃ᵢ, `[hidden, in]`, or nothing where it is zero or not wanted. */
  get stream(): Tensor | undefined {
    return this.#stream;
  }

  /** Adds the tokens of one batch. */
  add({ expert, merged, weights }: Pair): void {
    this.#own = gram(merged.input, { of: "columns", rowWeights: weights, ...accumulateInto(this.#own) });
    if (expert === merged) return;
    using weighted = scaleRows(merged.input, weights);
    this.#drift = differenceTimes(expert.input, merged.input, weighted, this.#drift);
    if (this.withStream) this.#stream = differenceTimes(expert.stream, merged.stream, weighted, this.#stream);
  }

  /** The statistics of both samples together, anew. */
  plus(other: TaskStatistics): TaskStatistics {
    const both = new TaskStatistics(this.withStream);
    both.#own = sum(this.#own, other.#own);
    both.#drift = sum(this.#drift, other.#drift);
    both.#stream = sum(this.#stream, other.#stream);
    return both;
  }

  /**
   * n_i = ‖S_i‖_F and k_i = ‖C_i‖_F.
   *
   * @throws {IterisError} `not_finite_activations`
   */
  async norms(task: string, stage: string): Promise<{ readonly own: number; readonly cross: number }> {
    const own = await frobeniusNorm(this.own);
    const cross = this.#drift ? await this.#crossNorm(this.#drift) : own;
    if (Number.isFinite(own) && Number.isFinite(cross)) return { own, cross };
    throw new IterisError(
      "not_finite_activations",
      `the inputs of ${stage} contain NaN or infinity on the samples of ${task}`,
      "check the adapter and the base model for NaN weights, and that they belong together",
      `${task}, ${stage}`,
    );
  }

  async #crossNorm(drift: Tensor): Promise<number> {
    using cross = plus(this.own, drift);
    return await frobeniusNorm(cross);
  }

  [Symbol.dispose](): void {
    this.#own?.dispose();
    this.#drift?.dispose();
    this.#stream?.dispose();
  }
}

/** into + (x − y)ᵀ weighted. */
function differenceTimes(x: Tensor, y: Tensor, weighted: Tensor, into: Tensor | undefined): Tensor {
  using difference = plus(x, y, -1);
  return gemm(difference, weighted, { transposeA: true, ...accumulateInto(into) });
}

function accumulateInto(into: Tensor | undefined): { into: Tensor; beta: number } | Record<never, never> {
  return into ? { into, beta: 1 } : {};
}

function sum(x: Tensor | undefined, y: Tensor | undefined): Tensor | undefined {
  return x && y && plus(x, y);
}
