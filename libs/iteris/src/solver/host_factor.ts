import {
  cholesky,
  choleskySolve,
  type CpuDevice,
  type CpuTensor,
  gemm,
  type Tensor,
  TensorError,
  triangularSolve,
} from "@lora-loom/tensor";
import { IterisError } from "../errors.ts";
import { estimateCondition } from "./condition.ts";
import type { Factor, Solved } from "./factor.ts";

type Vector = Float64Array<ArrayBuffer>;

/** Below this backward error, refinement has nothing left to win in float64. */
const TARGET_ERROR = 1e-15;
const MOST_REFINEMENTS = 3;

/** How G was made, which decides when it counts as singular. */
export interface Conditioning {
  /** Unit roundoff of the sums in G: 2⁻²⁴ from a GPU, 2⁻⁵³ from the CPU. */
  readonly roundoff: number;
  /** Whether α > 0. Without it, pivots that are mere rounding make the system singular. */
  readonly regularised: boolean;
  /** Module or stage, for errors. */
  readonly where: string;
}

/**
 * Factors `gram` + `ridge`·I in float64 on the CPU, after scaling it to a unit diagonal.
 *
 * @throws {IterisError} `singular_system`
 */
export async function factorOnHost(
  gram: CpuTensor,
  ridge: number,
  conditioning: Conditioning,
): Promise<Factor> {
  const n = gram.shape[0]!;
  const matrix = withRidge(gram.floats, n, ridge);
  const scales = inverseRootDiagonal(matrix, n, conditioning);
  const unit = scaled(matrix, n, scales);
  const lower = factorScaled(unit, n, conditioning);
  const condition = await estimateCondition(
    n,
    (x) => multiply(gram.device, x, unit, 1, n),
    (x) => choleskySolve(lower, n, x, 1),
  );
  return new HostFactor(gram.device, unit, lower, scales, condition);
}

class HostFactor implements Factor {
  readonly solver = "cpu_float64";
  readonly shift = 0;

  constructor(
    readonly device: CpuDevice,
    /** Ĝ = D^-½ G D^-½, D being G's diagonal. */
    readonly matrix: Vector,
    /** L̂ of Ĝ = L̂ L̂ᵀ. */
    readonly lower: Vector,
    readonly scales: Vector,
    readonly condition: number,
  ) {}

  solve(rows: Tensor): Promise<Solved> {
    const [m, n] = rows.shape as [number, number];
    const target = this.#scaleColumns((rows as CpuTensor).floats, m, n);
    let x = this.#apply(target, m, n);
    let rest = this.#residual(target, x, m, n);
    let iterations = 0;
    for (; iterations < MOST_REFINEMENTS && this.#backwardError(rest, x) > TARGET_ERROR; iterations++) {
      const refined = plus(x, this.#apply(rest, m, n));
      const next = this.#residual(target, refined, m, n);
      if (normOf(next) >= normOf(rest)) break;
      [x, rest] = [refined, next];
    }
    const solution = this.device.wrap(this.#scaleColumns(x, m, n), [m, n]);
    return Promise.resolve({ x: solution, backwardError: this.#backwardError(rest, x), iterations });
  }

  half(rows: Tensor): Promise<Tensor> {
    const [m, n] = rows.shape as [number, number];
    const columns = transposed(this.#scaleColumns((rows as CpuTensor).floats, m, n), m, n);
    const z = transposed(triangularSolve(this.lower, n, columns, m), n, m);
    return Promise.resolve(this.device.wrap(z, [m, n]));
  }

  /** rows · Ĝ⁻¹ by the factor, unrefined. */
  #apply(rows: Vector, m: number, n: number): Vector {
    return transposed(choleskySolve(this.lower, n, transposed(rows, m, n), m), n, m);
  }

  #backwardError(rest: Vector, x: Vector): number {
    return normOf(rest) / (normOf(x) * normOf(this.matrix) || 1);
  }

  #scaleColumns(rows: Vector, m: number, n: number): Vector {
    const result = new Float64Array(m * n);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) result[i * n + j] = rows[i * n + j]! * this.scales[j]!;
    }
    return result;
  }

  #residual(target: Vector, x: Vector, m: number, n: number): Vector {
    const product = multiply(this.device, x, this.matrix, m, n);
    return target.map((value, index) => value - product[index]!);
  }

  [Symbol.dispose](): void {}
}

function withRidge(gram: Float64Array, n: number, ridge: number): Vector {
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    // The two halves of a Gram matrix may differ by rounding; the solver wants one symmetric matrix.
    for (let j = 0; j < i; j++) {
      matrix[i * n + j] = matrix[j * n + i] = (gram[i * n + j]! + gram[j * n + i]!) / 2;
    }
    matrix[i * n + i] = gram[i * n + i]! + ridge;
  }
  return matrix;
}

function inverseRootDiagonal(matrix: Vector, n: number, { where }: Conditioning): Vector {
  return Float64Array.from({ length: n }, (_, i) => {
    const value = matrix[i * n + i]!;
    if (!(value > 0)) throw singularSystem(where, `input ${i} is zero on all samples`);
    return 1 / Math.sqrt(value);
  });
}

function scaled(matrix: Vector, n: number, scales: Vector): Vector {
  const result = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) result[i * n + j] = matrix[i * n + j]! * scales[i]! * scales[j]!;
  }
  return result;
}

function factorScaled(matrix: Vector, n: number, { roundoff, regularised, where }: Conditioning): Vector {
  let lower: Vector;
  try {
    lower = cholesky(matrix, n);
  } catch (error) {
    if (error instanceof TensorError && error.code === "not_positive_definite") {
      throw singularSystem(where, error.message);
    }
    throw error;
  }
  // Without a ridge, a pivot as small as the rounding of the sums themselves stands for an exact zero.
  const noise = regularised ? 0 : 8 * Math.sqrt(n) * roundoff;
  for (let i = 0; i < n; i++) {
    const pivot = lower[i * n + i]! ** 2;
    if (pivot <= noise) {
      throw singularSystem(where, `pivot ${i} of the scaled system is ${pivot.toExponential(1)}`);
    }
  }
  return lower;
}

/** The error of a system that has no unique solution. */
export function singularSystem(where: string, reason: string): IterisError {
  return new IterisError(
    "singular_system",
    `the system of ${where} is singular: ${reason}`,
    "use a larger alpha (1e-4 is the default), or more samples",
    where,
  );
}

/** rows (`m` × `n`) · matrix (`n` × `n`). */
function multiply(device: CpuDevice, rows: Vector, matrix: Vector, m: number, n: number): Vector {
  using left = device.wrap(rows, [m, n]);
  using right = device.wrap(matrix, [n, n]);
  using product = gemm(left, right) as CpuTensor;
  return product.floats;
}

function transposed(matrix: Vector, rows: number, columns: number): Vector {
  const result = new Float64Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j]!;
  }
  return result;
}

function plus(x: Vector, y: Vector): Vector {
  return x.map((value, index) => value + y[index]!);
}

function normOf(x: Float64Array): number {
  let sum = 0;
  for (const value of x) sum += value * value;
  return Math.sqrt(sum);
}
