import { type Device, gemm, scaleColumns, type Tensor } from "@lora-loom/tensor";
import { frobeniusNorm, multiple } from "../algebra.ts";
import { addToPair } from "../ops/add_to_pair.ts";
import { equilibrate, type Equilibrated } from "../ops/equilibrate.ts";
import { residual } from "../ops/residual.ts";
import { estimateCondition } from "./condition.ts";
import { conjugateGradients } from "./conjugate_gradients.ts";
import type { Factor, Solved } from "./factor.ts";
import { type Conditioning, singularSystem } from "./host_factor.ts";
import { isNotPositiveDefinite, TILE, TiledCholesky } from "./tiled_cholesky.ts";

/** Refinement ends below this backward error, ‖N − X G‖ / (‖X‖ ‖G‖): a pair of f32 numbers holds hardly more. */
const TARGET_ERROR = 1e-14;
const MOST_REFINEMENTS = 12;
/** Above this ‖N − X G‖ / ‖N‖, a solution is not one. */
const LARGEST_RESIDUAL = 1e-3;
/** A step that shrinks the residual less than this is no progress. */
const PROGRESS = 0.5;
/** What conjugate gradients are asked for within one refinement step. */
const INNER = { reduction: 1e-4, mostSteps: 100 };
/** Shifts of the unit diagonal to try, in turn, when f32 cannot factor the matrix as it is. */
const SHIFTS = [0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2];

/**
 * Factors `gram` + `ridge`·I in f32 on the GPU, after scaling it by powers of two to a diagonal near 1. Solutions are refined with
 * residuals in twice that precision. Where the matrix is too ill-conditioned for an f32 factor, the factor of a slightly shifted one
 * becomes the preconditioner of conjugate gradients on the matrix itself.
 *
 * @param tile rows of a tile of the factorisation
 * @throws {IterisError} `singular_system`
 */
export async function factorOnDevice(
  gram: Tensor,
  ridge: number,
  conditioning: Conditioning,
  tile = TILE,
): Promise<Factor> {
  const system = equilibrate(gram, ridge);
  try {
    const { factor, shift } = await factorShifted(system, conditioning, tile);
    const condition = await conditionOf(system, factor);
    return new DeviceFactor(system, factor, shift, condition, conditioning.where);
  } catch (error) {
    disposeSystem(system);
    throw error;
  }
}

class DeviceFactor implements Factor {
  readonly solver = "gpu_refined";

  constructor(
    readonly system: Equilibrated,
    readonly factor: TiledCholesky,
    readonly shift: number,
    readonly condition: number,
    readonly where: string,
  ) {}

  async solve(rows: Tensor): Promise<Solved> {
    using target = scaleColumns(rows, this.system.scales);
    using refinement = await Refinement.start(this.system, target);
    await this.#refine(refinement);
    const { relativeResidual, backwardError, iterations } = refinement;
    if (!(relativeResidual <= LARGEST_RESIDUAL)) {
      throw singularSystem(
        this.where,
        `refinement ends at a residual of ${relativeResidual.toExponential(1)}`,
      );
    }
    return { x: scaleColumns(refinement.solution, this.system.scales), backwardError, iterations };
  }

  half(rows: Tensor): Promise<Tensor> {
    using target = scaleColumns(rows, this.system.scales);
    return Promise.resolve(this.factor.forward(target));
  }

  /** Improves a solution by the factor as long as that converges, then by conjugate gradients. */
  async #refine(refinement: Refinement): Promise<void> {
    let byFactor = this.shift === 0;
    for (let step = 0; step < MOST_REFINEMENTS && refinement.backwardError > TARGET_ERROR; step++) {
      const { change, steps } = byFactor
        ? { change: this.factor.solve(refinement.rest), steps: 1 }
        : await this.#byGradients(refinement.rest);
      using correction = change;
      const progress = await refinement.improve(correction, steps);
      if (progress) continue;
      if (!byFactor) return;
      byFactor = false;
    }
  }

  async #byGradients(rest: Tensor): Promise<{ change: Tensor; steps: number }> {
    // In plain f32, products with the matrix would err by more than its smallest eigenvalues.
    using zero = this.system.matrix.device.zeros(rest.shape);
    const apply = (rows: Tensor) => {
      using negated = residual(zero, rows, zero, this.system);
      return multiple(negated, -1);
    };
    const { x, steps } = await conjugateGradients(apply, rest, (rows) => this.factor.solve(rows), INNER);
    return { change: x, steps };
  }

  [Symbol.dispose](): void {
    disposeSystem(this.system);
    this.factor[Symbol.dispose]();
  }
}

/** A solution of the scaled system that improves step by step, in twice the usual precision. */
class Refinement implements Disposable {
  readonly #high: Tensor;
  readonly #low: Tensor;
  #rest: Tensor;
  #restNorm: number;
  #backwardError = Infinity;
  #iterations = 0;

  private constructor(
    readonly system: Equilibrated,
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
  static async start(system: Equilibrated, target: Tensor): Promise<Refinement> {
    return new Refinement(system, target, await frobeniusNorm(target), await frobeniusNorm(system.matrix));
  }

  /** The solution as far as f32 holds it. */
  get solution(): Tensor {
    return this.#high;
  }

  /** What the solution still misses. */
  get rest(): Tensor {
    return this.#rest;
  }

  get relativeResidual(): number {
    return this.#restNorm / (this.targetNorm || 1);
  }

  get backwardError(): number {
    return this.#restNorm === 0 ? 0 : this.#backwardError;
  }

  get iterations(): number {
    return this.#iterations;
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
    this.#iterations += steps;
    return progress;
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#high, this.#low, this.#rest]) tensor.dispose();
  }
}

function disposeSystem({ matrix, diagonal, scales }: Equilibrated): void {
  for (const tensor of [matrix, diagonal, scales]) tensor.dispose();
}

async function factorShifted(
  { matrix, diagonal }: Equilibrated,
  { regularised, roundoff, where }: Conditioning,
  tile: number,
): Promise<{ factor: TiledCholesky; shift: number }> {
  const ridges = Float64Array.from(await matrix.device.download(diagonal));
  const noise = Math.sqrt(8 * Math.sqrt(matrix.shape[0]!) * roundoff);
  for (const shift of SHIFTS) {
    try {
      const factor = await TiledCholesky.factor(matrix, ridges.map((ridge) => ridge + shift), tile);
      if (regularised || factor.smallestPivot > noise) return { factor, shift };
      factor[Symbol.dispose]();
    } catch (error) {
      if (!isNotPositiveDefinite(error)) throw error;
    }
    // Without a ridge, what f32 cannot factor has no unique solution in it either.
    if (!regularised) throw singularSystem(where, "the Gram matrix has no full rank, and alpha is 0");
  }
  throw singularSystem(
    where,
    `the scaled system is not positive definite even when shifted by ${SHIFTS.at(-1)}`,
  );
}

async function conditionOf({ matrix, diagonal }: Equilibrated, factor: TiledCholesky): Promise<number> {
  const { device } = matrix;
  const n = matrix.shape[0]!;
  return await estimateCondition(
    n,
    (x) => onDevice(device, x, (row) => gemm(row, matrix, { into: scaleColumns(row, diagonal), beta: 1 })),
    (x) => onDevice(device, x, (row) => factor.solve(row)),
  );
}

async function onDevice(
  device: Device,
  x: Float64Array<ArrayBuffer>,
  multiply: (row: Tensor) => Tensor,
): Promise<Float64Array<ArrayBuffer>> {
  using row = device.upload(x, [1, x.length]);
  using image = multiply(row);
  return Float64Array.from(await device.download(image));
}
