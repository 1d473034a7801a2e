import { addToPair, rowNorms, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import { accumulate, multiple } from "../algebra.ts";
import { plainResidual, residual, type RowMap } from "../ops/residual.ts";
import type { Precision } from "../product_sum.ts";
import { Scalars } from "../scalars.ts";

/** A step that shrinks the residual less than this is no progress. */
const PROGRESS = 0.5;

/** Norms of what a correction leads to: what is still missing, and the solution. Known once they are read back. */
interface Measured {
  rest: number;
  solution: number;
}

/**
 * A solution of X M = N that improves step by step, with what it still misses. In `double` precision, a GPU holds it as a pair of f32
 * and computes what it misses in as much.
 */
export class Refinement implements Disposable {
  #high: Tensor;
  #low: Tensor | undefined;
  #rest: Tensor;
  /** Norms that are on their way: each reading waits for the device. */
  readonly #scalars = new Scalars();
  #targetNorm = NaN;
  #matrixNorm = NaN;
  #begun: Measured | undefined;
  #restNorm = Infinity;
  #backwardError = Infinity;
  #steps = 0;

  /** Starts from zero. */
  constructor(readonly system: RowMap, readonly target: Tensor, precision: Precision) {
    this.#high = target.device.zeros(target.shape);
    if (precision === "double") this.#low = target.device.zeros(target.shape);
    this.#rest = multiple(target, 1);
    this.#scalars.add(rowNorms(target), (...norms) => this.#targetNorm = Math.hypot(...norms));
    this.#scalars.add(sumOfSquares(system.matrix), (squares) => this.#matrixNorm = Math.sqrt(squares));
  }

  /** The solution as far as one number an entry holds it. */
  get solution(): Tensor {
    return this.#high;
  }

  /** N − X M. */
  get rest(): Tensor {
    return this.#rest;
  }

  /** ‖N − X M‖_F / ‖N‖_F; infinite as long as nothing is known. */
  get relativeResidual(): number {
    return this.#restNorm / (this.#targetNorm || 1);
  }

  /** ‖N − X M‖_F / (‖X‖_F ‖M‖_F). */
  get backwardError(): number {
    return this.#restNorm === 0 ? 0 : this.#backwardError;
  }

  /** Sum of the steps of all corrections that were kept. */
  get steps(): number {
    return this.#steps;
  }

  /** Adds a first correction without waiting for what it leads to: the next one finds out. */
  begin(correction: Tensor): void {
    this.#add(correction, 1);
    this.#rest.dispose();
    this.#rest = this.#missing();
    this.#begun = this.#measure(this.#rest);
  }

  /** Adds a correction unless it makes the residual larger; returns whether the residual shrank well. */
  async improve(correction: Tensor, steps: number): Promise<boolean> {
    this.#add(correction, 1);
    const next = this.#missing();
    const measured = this.#measure(next);
    await this.#scalars.settle();
    if (this.#restNorm === Infinity) this.#restNorm = this.#targetNorm;
    const begun = this.#begun;
    this.#begun = undefined;
    if (begun && !this.#accept(begun, 1)) {
      next.dispose();
      this.#startAnew();
      return false;
    }
    const before = this.#restNorm;
    if (!this.#accept(measured, steps)) {
      this.#add(correction, -1);
      next.dispose();
      return false;
    }
    this.#rest.dispose();
    this.#rest = next;
    return measured.rest <= PROGRESS * before;
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#high, this.#low, this.#rest]) tensor?.dispose();
    this.#scalars[Symbol.dispose]();
  }

  /** N − X M as it is now. */
  #missing(): Tensor {
    return this.#low
      ? residual(this.target, this.#high, this.#low, this.system)
      : plainResidual(this.target, this.#high, this.system);
  }

  #measure(rest: Tensor): Measured {
    const measured = { rest: NaN, solution: NaN };
    this.#scalars.add(rowNorms(rest), (...norms) => measured.rest = Math.hypot(...norms));
    this.#scalars.add(rowNorms(this.#high), (...norms) => measured.solution = Math.hypot(...norms));
    return measured;
  }

  /** Takes the figures over, unless the residual grew. */
  #accept({ rest, solution }: Measured, steps: number): boolean {
    if (!(rest < this.#restNorm)) return false;
    this.#restNorm = rest;
    this.#backwardError = rest / (solution * this.#matrixNorm);
    this.#steps += steps;
    return true;
  }

  #startAnew(): void {
    const { device, shape } = this.target;
    for (const tensor of [this.#high, this.#low, this.#rest]) tensor?.dispose();
    this.#high = device.zeros(shape);
    if (this.#low) this.#low = device.zeros(shape);
    this.#rest = multiple(this.target, 1);
  }

  #add(correction: Tensor, sign: 1 | -1): void {
    if (!this.#low) return accumulate(this.#high, correction, sign);
    using signed = multiple(correction, sign);
    addToPair(this.#high, this.#low, signed);
  }
}
