import {
  gemm,
  invertTriangular,
  scaleColumns,
  solveCholesky,
  solveTriangular,
  type StartedFactor,
  type Tensor,
  TensorError,
} from "@lora-loom/tensor";
import { multiple } from "../algebra.ts";
import { IterisError } from "../errors.ts";
import { type Equilibrated, equilibrateLike } from "../ops/equilibrate.ts";
import { residual } from "../ops/residual.ts";
import type { Precision } from "../product_sum.ts";
import { estimateCondition } from "./condition.ts";
import { conjugateGradients } from "./conjugate_gradients.ts";
import { Refinement } from "./refinement.ts";

/** How G was made, which decides when it counts as singular. */
export interface Conditioning {
  /** Unit roundoff of the sums in G: 2⁻²⁴ from a GPU, 2⁻⁵³ from the CPU. */
  readonly roundoff: number;
  /** In what G was summed. A GPU solves no better than that: `double` with residuals in pairs of f32, `single` with plain ones. */
  readonly precision: Precision;
  /** Whether α > 0. Without it, pivots that are mere rounding make the system singular. */
  readonly regularised: boolean;
  /** Module or stage, for errors. */
  readonly where: string;
}

/** What solving X G = N gave. */
export interface Solved {
  /** X, as the right-hand side: one row each. */
  readonly x: Tensor;
  /** ‖N − X G‖_F / (‖X‖_F ‖G‖_F), of the system as it was solved: scaled to a diagonal near 1. */
  readonly backwardError: number;
  /** Solves with the factor, or conjugate-gradient steps. */
  readonly iterations: number;
}

/**
 * Refinement ends below this backward error. The first solve reaches it in float64; a pair of f32 numbers holds little more, and a sum
 * in f32 is off by far more than the last.
 */
const TARGET_ERROR = { cpu: 1e-15, double: 1e-14, single: 2 ** -27 };
/** Up to so many rows at a time, products with the inverse of L cost less than solving with L block by block. */
const FEW_ROWS = 128;
const MOST_REFINEMENTS = 12;
/** Above this ‖N − X G‖ / ‖N‖, a solution is not one. */
const LARGEST_RESIDUAL = 1e-3;
/** What conjugate gradients are asked for within one refinement step. */
const GRADIENTS = { reduction: 1e-4, mostSteps: 100 };

/** A symmetric positive definite matrix G, factored: S G S = L Lᵀ for powers of two S. */
export class Factor implements Disposable {
  #inverse: Tensor | undefined;
  /** Whether the matrix could be factored, once that is known. */
  readonly usable: Promise<boolean>;

  /**
   * @param system S G S, and S
   * @param lower L
   * @param shift what had to be added to the diagonal of S G S to factor it; 0 as a rule. Solutions are of G itself all the same
   * @param owner whose L it is, where that is another matrix's
   */
  constructor(
    readonly system: Equilibrated,
    readonly lower: StartedFactor,
    readonly shift: number,
    readonly conditioning: Conditioning,
    private readonly owner?: Factor,
  ) {
    this.usable = owner?.usable ?? allAbove(lower.pivots, noiseOf(system, conditioning));
    this.usable.catch(() => {}); // whoever uses the factor awaits it; must not count as unhandled meanwhile
  }

  /** Which arithmetic it is in. */
  get solver(): "cpu_float64" | "gpu_refined" {
    return this.#backend === "cpu" ? "cpu_float64" : "gpu_refined";
  }

  /**
   * The system of a matrix much like G: solved with this factor, which has to outlive it, by a few more steps of refinement.
   *
   * @param where for errors
   */
  nearby(gram: Tensor, ridge: number, where: string): Omit<Factor, "half"> {
    const system = equilibrateLike(this.system, gram, ridge);
    return new Factor(system, this.lower, this.shift, { ...this.conditioning, where }, this);
  }

  /** Estimates the 2-norm condition number of S G S; with a shift, of the shifted matrix's inverse. */
  async condition(): Promise<number> {
    const { matrix, diagonal } = this.system;
    const estimate = await estimateCondition(
      matrix.device,
      matrix.shape[0]!,
      (row) => gemm(row, matrix, { into: scaleColumns(row, diagonal), beta: 1 }),
      (row) => this.#approximate(row),
    );
    await this.#check();
    return estimate;
  }

  /**
   * Solves X G = N for rows `[m, n]`.
   *
   * @throws {IterisError} `singular_system` when no refinement comes near a solution
   */
  async solve(rows: Tensor): Promise<Solved> {
    using target = scaleColumns(rows, this.system.scales);
    let residual = Infinity;
    for (const precision of this.#precisions) {
      using refinement = new Refinement(this.system, target, precision);
      await this.#refine(refinement, precision);
      const { solution, relativeResidual, backwardError, steps } = refinement;
      if (relativeResidual <= LARGEST_RESIDUAL) {
        return { x: scaleColumns(solution, this.system.scales), backwardError, iterations: steps };
      }
      residual = relativeResidual;
    }
    throw singularSystem(
      this.conditioning.where,
      `refinement ends at a residual of ${residual.toExponential(1)}`,
    );
  }

  /** An approximation of N G⁻¹ for rows N `[m, n]`, by the factor alone: off by the rounding of the factorisation, and by its shift. */
  precondition(rows: Tensor): Tensor {
    using target = scaleColumns(rows, this.system.scales);
    using solution = this.#approximate(target);
    return scaleColumns(solution, this.system.scales);
  }

  /** Z = N S L^-T, `[m, n]`: for X = N G⁻¹, Z Zᵀ = X G Xᵀ. */
  half(rows: Tensor): Tensor {
    using target = scaleColumns(rows, this.system.scales);
    const inverse = this.#inverseFor(target);
    if (inverse) return gemm(target, inverse, { transposeB: true });
    return solveTriangular(this.lower, target, { side: "right", transpose: true });
  }

  [Symbol.dispose](): void {
    disposeSystem(this.system);
    if (this.owner) return;
    this.lower[Symbol.dispose]();
    this.#inverse?.dispose();
  }

  get #backend(): "cpu" | "webgpu" {
    return this.system.matrix.device.info.backend;
  }

  /** Whether the factor is that of the matrix itself. */
  get #byFactor(): boolean {
    return this.shift === 0;
  }

  /** What to refine in, in turn. */
  get #precisions(): readonly Precision[] {
    const isPlainEnough = this.#backend === "webgpu" && this.conditioning.precision === "single";
    return isPlainEnough && this.#byFactor ? ["single", "double"] : ["double"];
  }

  /** Improves a solution by the factor as long as that converges, then, in double precision, by conjugate gradients. */
  async #refine(refinement: Refinement, precision: Precision): Promise<void> {
    let byFactor = this.#byFactor;
    const enough = TARGET_ERROR[this.#backend === "cpu" ? "cpu" : precision];
    // What one solve in f32 gives is never enough; waiting to learn it would take longer than the next.
    if (byFactor && this.#backend === "webgpu") {
      using first = this.#approximate(refinement.rest);
      refinement.begin(first);
    }
    for (let step = 0; step < MOST_REFINEMENTS && refinement.backwardError > enough; step++) {
      const { change, steps } = byFactor
        ? { change: this.#approximate(refinement.rest), steps: 1 }
        : await this.#byGradients(refinement.rest);
      using correction = change;
      const isProgress = await refinement.improve(correction, steps);
      await this.#check();
      if (isProgress) continue;
      if (precision === "single") return;
      // In float64, no progress means that nothing is left to gain.
      if (!byFactor || refinement.relativeResidual < LARGEST_RESIDUAL ** 2) return;
      byFactor = false;
    }
  }

  async #check(): Promise<void> {
    if (!await this.usable) throw notPositiveDefinite(this.conditioning);
  }

  #approximate(rows: Tensor): Tensor {
    if (this.owner) return this.owner.#approximate(rows);
    const inverse = this.#inverseFor(rows);
    if (!inverse) return solveCholesky(this.lower, rows, { side: "right" });
    using half = gemm(rows, inverse, { transposeB: true });
    return gemm(half, inverse);
  }

  /** L⁻¹ where it pays: on hardware and for few rows. */
  #inverseFor(rows: Tensor): Tensor | undefined {
    const { class: kind } = rows.device.info;
    if (kind === "cpu" || kind === "software" || rows.shape[0]! > FEW_ROWS) return undefined;
    return this.#inverse ??= invertTriangular(this.lower);
  }

  async #byGradients(rest: Tensor): Promise<{ change: Tensor; steps: number }> {
    // In plain f32, products with the matrix would err by more than its smallest eigenvalues.
    using zero = this.system.matrix.device.zeros(rest.shape);
    const apply = (rows: Tensor) => {
      using negated = residual(zero, rows, zero, this.system);
      return multiple(negated, -1);
    };
    const { x, steps } = await conjugateGradients(apply, rest, (rows) => this.#approximate(rows), GRADIENTS);
    return { change: x, steps };
  }
}

/** Without a ridge, a pivot as small as the rounding of the sums themselves stands for an exact zero. */
function noiseOf({ matrix }: Equilibrated, { regularised, roundoff }: Conditioning): number {
  return regularised ? 0 : 8 * Math.sqrt(matrix.shape[0]!) * roundoff;
}

async function allAbove(pivots: Promise<Float64Array>, noise: number): Promise<boolean> {
  try {
    return (await pivots).every((pivot) => pivot > noise);
  } catch (error) {
    if (isNotPositiveDefinite(error)) return false;
    throw error;
  }
}

/** Whether a factorisation failed for the matrix's sake. */
export function isNotPositiveDefinite(error: unknown): boolean {
  return error instanceof TensorError && error.code === "not_positive_definite";
}

/** The error of a matrix that no shift makes positive definite. */
export function notPositiveDefinite({ where }: Conditioning): IterisError {
  return singularSystem(where, "the scaled Gram matrix is not positive definite");
}

/** Releases a scaled system. */
export function disposeSystem({ matrix, diagonal, scales }: Equilibrated): void {
  for (const tensor of [matrix, diagonal, scales]) tensor.dispose();
}

/** The error of a system that has no unique solution. */
function singularSystem(where: string, reason: string): IterisError {
  return new IterisError(
    "singular_system",
    `the system of ${where} is singular: ${reason}`,
    "use a larger alpha (1e-4 is the default), or more samples",
    where,
  );
}
