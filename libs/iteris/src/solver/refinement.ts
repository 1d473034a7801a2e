import type { Tensor } from "@lora-loom/tensor";
import { frobeniusNorm, multiple } from "../algebra.ts";
import { addToPair } from "../ops/add_to_pair.ts";
import { residual, type RowMap } from "../ops/residual.ts";

/** A step that shrinks the residual less than this is no progress. */
const PROGRESS = 0.5;

/** A solution of X M = N that improves step by step, in twice the usual precision, with what it still misses. */
export class Refinement implements Disposable {
  readonly #high: Tensor;
  readonly #low: Tensor;
  #rest: Tensor;
  #restNorm: number;
  #backwardError = Infinity;
  #steps = 0;

  private constructor(
    readonly system: RowMap,
    readonly target: Tensor,
    readonly targetNorm: number,
    readonly matrixNorm: number,
  ) {
    this.#high = target.device.zeros(target.shape);
    this.#low = target.device.zeros(target.shape);
    this.#rest = multiple(target, 1);
    this.#restNorm = targetNorm;
  }

  /** Starts from zero. */
  static async start(system: RowMap, target: Tensor): Promise<Refinement> {
    return new Refinement(system, target, await frobeniusNorm(target), await frobeniusNorm(system.matrix));
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
    addToPair(this.#high, this.#low, correction);
    const next = residual(this.target, this.#high, this.#low, this.system);
    const nextNorm = await frobeniusNorm(next);
    if (!(nextNorm < this.#restNorm)) {
      using back = multiple(correction, -1);
      addToPair(this.#high, this.#low, back);
      next.dispose();
      return false;
    }
    const progress = nextNorm <= PROGRESS * this.#restNorm;
    this.#rest.dispose();
    this.#rest = next;
    this.#restNorm = nextNorm;
    this.#backwardError = nextNorm / (await frobeniusNorm(this.#high) * this.matrixNorm);
    this.#steps += steps;
    return progress;
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#high, this.#low, this.#rest]) tensor.dispose();
  }
}
