import type { Tensor } from "@lora-loom/tensor";
import { accumulate, frobeniusNorms, multiple } from "../algebra.ts";
import { addToPair } from "../ops/add_to_pair.ts";
import { plainResidual, residual, type RowMap } from "../ops/residual.ts";
import type { Precision } from "../product_sum.ts";

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
  #restNorm: number;
  #backwardError = Infinity;
  #steps = 0;

  private constructor(
    readonly system: RowMap,
    readonly target: Tensor,
    readonly targetNorm: number,
    readonly matrixNorm: number,
    precision: Precision,
  ) {
    this.#high = target.device.zeros(target.shape);
    if (precision === "double") this.#low = target.device.zeros(target.shape);
    this.#rest = multiple(target, 1);
    this.#restNorm = targetNorm;
  }

  /** Starts from zero. */
  static async start(system: RowMap, target: Tensor, precision: Precision): Promise<Refinement> {
    const [targetNorm, matrixNorm] = await frobeniusNorms(target, system.matrix);
    return new Refinement(system, target, targetNorm, matrixNorm, precision);
  }

  /** The solution as far as one number an entry holds it. */
  get solution(): Tensor {
    return this.#high;
  }

  /** N − X M. */
  get rest(): Tensor {
    return this.#rest;
  }

  /** ‖N − X M‖_F / ‖N‖_F. */
  get relativeResidual(): number {
    return this.#restNorm / (this.targetNorm || 1);
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
    const [nextNorm, norm] = await frobeniusNorms(next, this.#high);
    if (!(nextNorm < this.#restNorm)) {
      this.#add(correction, -1);
      next.dispose();
      return false;
    }
    const progress = nextNorm <= PROGRESS * this.#restNorm;
    this.#rest.dispose();
    this.#rest = next;
    this.#restNorm = nextNorm;
    this.#backwardError = nextNorm / (norm * this.matrixNorm);
    this.#steps += steps;
    return progress;
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#high, this.#low, this.#rest]) tensor?.dispose();
  }

  #add(correction: Tensor, sign: 1 | -1): void {
    if (!this.#low) return accumulate(this.#high, correction, sign);
    using signed = multiple(correction, sign);
    addToPair(this.#high, this.#low, signed);
  }
}
