import { rowNorms, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import { accumulate, multiple } from "../algebra.ts";
import { addToPair } from "../ops/add_to_pair.ts";
import { plainResidual, residual, type RowMap } from "../ops/residual.ts";
import type { Precision } from "../product_sum.ts";
import { Scalars } from "../scalars.ts";

/** A step that shrinks the residual less than this is no progress. */
const PROGRESS = 0.5;

/**
 * A solution of X M = N that improves step by step, with what it still misses. In `double` precision, a GPU holds it as a pair of f32
 * and computes what it misses in as much.
 */
export class Refinement implements Disposable {
  readonly #high: Tensor;
  readonly #low: Tensor | undefined;
  #rest: Tensor;
  /** ‖N‖_F and ‖M‖_F, known after the first step. */
  #norms: { readonly target: number; readonly matrix: number } | undefined;
  #restNorm = Infinity;
  #backwardError = Infinity;
  #steps = 0;

  /** Starts from zero. */
  constructor(readonly system: RowMap, readonly target: Tensor, precision: Precision) {
    this.#high = target.device.zeros(target.shape);
    if (precision === "double") this.#low = target.device.zeros(target.shape);
    this.#rest = multiple(target, 1);
  }

  /** The solution as far as one number an entry holds it. */
  get solution(): Tensor {
    return this.#high;
  }

  /** N − X M. */
  get rest(): Tensor {
    return this.#rest;
  }

  /** ‖N − X M‖_F / ‖N‖_F; infinite before the first step. */
  get relativeResidual(): number {
    return this.#restNorm / (this.#norms?.target || 1);
  }

  /** ‖N − X M‖_F / (‖X‖_F ‖M‖_F). */
  get backwardError(): number {
    return this.#restNorm === 0 ? 0 : this.#backwardError;
  }

  /** Sum of the steps of all corrections that were kept. */
  get steps(): number {
    return this.#steps;
  }

  /** Adds a correction unless it makes the residual larger; returns whether the residual shrank well. */
  async improve(correction: Tensor, steps: number): Promise<boolean> {
    this.#add(correction, 1);
    const next = this.#low
      ? residual(this.target, this.#high, this.#low, this.system)
      : plainResidual(this.target, this.#high, this.system);
    const [nextNorm, norm] = await this.#readNorms(next);
    if (!(nextNorm < this.#restNorm)) {
      this.#add(correction, -1);
      next.dispose();
      return false;
    }
    const progress = nextNorm <= PROGRESS * this.#restNorm;
    this.#rest.dispose();
    this.#rest = next;
    this.#restNorm = nextNorm;
    this.#backwardError = nextNorm / (norm * this.#norms!.matrix);
    this.#steps += steps;
    return progress;
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#high, this.#low, this.#rest]) tensor?.dispose();
  }

  /** Norms of a residual and of the solution; the first time, those that stay the same as well, for each reading waits. */
  async #readNorms(next: Tensor): Promise<readonly [next: number, solution: number]> {
    const norms: number[] = [];
    using scalars = new Scalars();
    for (const rows of [next, this.#high, ...this.#norms ? [] : [this.target]]) {
      scalars.add(rowNorms(rows), (...ofRows) => norms.push(Math.hypot(...ofRows)));
    }
    if (!this.#norms) {
      scalars.add(sumOfSquares(this.system.matrix), (squares) => norms.push(Math.sqrt(squares)));
    }
    await scalars.settle();
    const [nextNorm, norm, target, matrix] = norms as [number, number, number, number];
    if (!this.#norms) {
      this.#norms = { target, matrix };
      this.#restNorm = target;
    }
    return [nextNorm, norm];
  }

  #add(correction: Tensor, sign: 1 | -1): void {
    if (!this.#low) return accumulate(this.#high, correction, sign);
    using signed = multiple(correction, sign);
    addToPair(this.#high, this.#low, signed);
  }
}
