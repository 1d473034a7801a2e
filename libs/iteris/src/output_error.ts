import { concatColumns, concatRows, gemm, sliceColumns, type Tensor } from "@lora-loom/tensor";
import { accumulate, multiple, plus, throughDelta, weightedSquares } from "./algebra.ts";
import type { Delta, Site } from "./base_model.ts";
import type { Target } from "./equations.ts";
import { productSquares } from "./ops/product_squares.ts";
import type { Scalars } from "./scalars.ts";
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

/** What the errors of one batch at a site are measured from. */
export interface MeasuredBatch {
  readonly site: Site;
  readonly pair: Pair;
  /** D_i^½, `[tokens]`. */
  readonly rootWeights: Tensor;
  /** W_i, `undefined` where the adapter lacks the module. */
  readonly delta: Delta | undefined;
  /** W0, needed for drift alone. */
  readonly baseWeight: Tensor | undefined;
  readonly target: Target;
  /** Σ W_i as one delta. */
  readonly stacked: Delta;
  readonly solution: Delta;
  /** N, by which the mean is divided. */
  readonly tasks: number;
}

/** Squared errors of one task at one site, summed over its batches. */
export class ErrorSums {
  #target = 0;
  #sum = 0;
  #mean = 0;
  #merged = 0;

  /**
   * Adds one batch.
   *
   * @param scalars what the sums wait in until they are read back
   */
  add(scalars: Scalars, batch: MeasuredBatch): void {
    const { site, target: { drift, stream }, pair: { merged }, solution, stacked, tasks } = batch;
    using outputs = drift || stream && site.writesStream
      ? new DenseOutputs(batch)
      : new FactoredOutputs(batch);
    // One product, because reading the inputs is what it costs.
    using factors = concatRows([solution.a, stacked.a]);
    using inner = gemm(merged.input, factors, { transposeB: true });
    const [rank, both] = [solution.a.shape[0]!, factors.shape[0]!];
    using bySolution = sliceColumns(inner, 0, rank);
    using byStacked = sliceColumns(inner, rank, both);
    scalars.add(outputs.squares(), (value) => this.#target += value);
    scalars.add(outputs.squaresLess(bySolution, solution.b, 1), (value) => this.#merged += value);
    scalars.add(outputs.squaresLess(byStacked, stacked.b, 1), (value) => this.#sum += value);
    scalars.add(outputs.squaresLess(byStacked, stacked.b, 1 / tasks), (value) => this.#mean += value);
  }

  /** The relative errors; plain roots where the target is zero. */
  errors(): OutputErrors {
    const relative = (squares: number) => Math.sqrt(squares / (this.#target || 1));
    return { sum: relative(this.#sum), mean: relative(this.#mean), merged: relative(this.#merged) };
  }
}

/** The targets Y_i of a batch, to take other outputs from. */
interface TargetOutputs extends Disposable {
  /** ‖D_i^½ Y_i‖², `[1]`. */
  squares(): Tensor;
  /** ‖D_i^½ (Y_i − factor · inner · bᵀ)‖², `[1]`, for `[tokens, r]` and `[out, r]`. */
  squaresLess(inner: Tensor, b: Tensor, factor: number): Tensor;
}

/** Targets that have every output in memory. */
class DenseOutputs implements TargetOutputs {
  readonly #target: Tensor;

  constructor(readonly batch: MeasuredBatch) {
    const { site, pair, delta, baseWeight, target } = batch;
    this.#target = targetRows(site, pair, delta, baseWeight, target);
  }

  squares(): Tensor {
    return weightedSquares(this.#target, this.batch.rootWeights);
  }

  squaresLess(inner: Tensor, b: Tensor, factor: number): Tensor {
    using rest = multiple(this.#target, 1);
    gemm(inner, b, { transposeB: true, alpha: -factor, into: rest, beta: 1 });
    return weightedSquares(rest, this.batch.rootWeights);
  }

  [Symbol.dispose](): void {
    this.#target.dispose();
  }
}

/** Targets X_i W_iᵀ, which are products of narrow factors, as is what they differ by from others. */
class FactoredOutputs implements TargetOutputs {
  readonly #inner: Tensor | undefined;

  constructor(readonly batch: MeasuredBatch) {
    const { pair: { expert }, delta } = batch;
    this.#inner = delta && gemm(expert.input, delta.a, { transposeB: true });
  }

  squares(): Tensor {
    const { delta, rootWeights } = this.batch;
    return delta ? productSquares(this.#inner!, delta.b, rootWeights) : rootWeights.device.zeros([1]);
  }

  squaresLess(inner: Tensor, b: Tensor, factor: number): Tensor {
    const { delta, rootWeights } = this.batch;
    using outputs = multiple(b, -factor);
    if (!delta) return productSquares(inner, outputs, rootWeights);
    using rows = concatColumns([this.#inner!, inner]);
    using all = concatColumns([delta.b, outputs]);
    return productSquares(rows, all, rootWeights);
  }

  [Symbol.dispose](): void {
    this.#inner?.dispose();
  }
}
