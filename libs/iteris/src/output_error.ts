import { gemm, type Tensor } from "@lora-loom/tensor";
import { accumulate, plus, throughDelta } from "./algebra.ts";
import type { Delta, Site } from "./base_model.ts";
import type { Target } from "./equations.ts";
import type { Pair } from "./statistics.ts";

/** ‖Y_i − X̃ᵢ Wᵀ‖² / ‖Y_i‖², both weighted by D_i, as a root: 0 is perfect, 1 is what no adapter gives. */
export interface OutputErrors {
  /** Of the sum of the deltas. */
  readonly sum: number;
  /** Of their mean. */
  readonly mean: number;
  /** Of the merged delta. */
  readonly merged: number;
}

/**
 * The target Y_i of one batch at a site, `[tokens, out]`: X_i W_iᵀ, with drift + (X_i − X̃ᵢ) W0ᵀ, with stream + H_i − H̃ᵢ where the
 * site writes the stream.
 *
 * @param delta W_i, `undefined` where the adapter lacks the module
 * @param baseWeight W0, needed for drift alone
 */
export function targetRows(
  site: Site,
  { expert, merged }: Pair,
  delta: Delta | undefined,
  baseWeight: Tensor | undefined,
  { drift, stream }: Target,
): Tensor {
  const target = drift
    ? driftRows(expert.input, merged.input, baseWeight!)
    : zeroRows(expert.input, site.outFeatures);
  if (delta) throughDelta(expert.input, delta, { into: target });
  if (stream && site.writesStream && expert !== merged) {
    accumulate(target, expert.stream);
    accumulate(target, merged.stream, -1);
  }
  return target;
}

function driftRows(expert: Tensor, merged: Tensor, baseWeight: Tensor): Tensor {
  using difference = plus(expert, merged, -1);
  return gemm(difference, baseWeight, { transposeB: true });
}

function zeroRows(like: Tensor, columns: number): Tensor {
  return like.device.zeros([like.shape[0]!, columns]);
}

/** Squared errors of one task at one site, summed over its batches. */
export class ErrorSums {
  #target = 0;
  #merged = 0;
  #sum = 0;
  #mean = 0;

  /** Adds one batch: ‖D_i^½ Y_i‖², and ‖D_i^½ (Y_i − X̃ᵢ Wᵀ)‖² for the merged delta, the sum and the mean of the deltas. */
  add([target, merged, sum, mean]: readonly number[]): void {
    this.#target += target!;
    this.#merged += merged!;
    this.#sum += sum!;
    this.#mean += mean!;
  }

  /** The relative errors; plain roots where the target is zero. */
  errors(): OutputErrors {
    const relative = (squares: number) => Math.sqrt(squares / (this.#target || 1));
    return { sum: relative(this.#sum), mean: relative(this.#mean), merged: relative(this.#merged) };
  }
}
