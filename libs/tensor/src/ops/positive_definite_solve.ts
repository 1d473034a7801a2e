import type { CpuDevice } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import type { Slicing } from "../kernels/exact_product.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { add } from "./add.ts";
import { addToPair } from "./add_to_pair.ts";
import {
  checkedPivots,
  CHOLESKY_KERNELS,
  factorCholesky,
  queueCholesky,
  type TriangularFactor,
} from "./cholesky.ts";
import { solveCholesky } from "./cholesky_solve.ts";
import { concatRows } from "./concat.ts";
import { copy } from "./copy.ts";
import { gemm } from "./gemm.ts";
import { preciseResidual, type ShiftedMatrix } from "./precise_residual.ts";
import { sumOfSquares } from "./reductions.ts";
import { reshape } from "./reshape.ts";

/** A solution in twice the usual precision. */
export interface PreciseSolution extends Disposable {
  /** X to f32; on the CPU, all of it. */
  readonly high: Tensor;
  /** What `high` lacks of X. */
  readonly low: Tensor;
  /** ‖B − X A‖_F / ‖B‖_F, as far as refinement knows; what rounds a pair of f32, about 2⁻⁴⁸ of |X||A|, comes on top. */
  readonly residual: number;
  /** Corrections that were made. */
  readonly corrections: number;
}

/** Corrections before anybody looks: each gains about six digits where the matrix is well conditioned. All but the last can do with coarse residuals. */
const UNSEEN = 2;
const MOST_CORRECTIONS = 12;
/** Refinement ends below this residual, or when a correction gains less than a factor of two. */
const TARGET = 2 ** -44;
/** Above this residual, a solution is not one. */
const LARGEST_RESIDUAL = 1e-3;

/**
 * Solves X A = B for a symmetric positive definite A, `[n, n]`, and right-hand sides B, `[m, n]`, one a row, to about the precision of float64: by a
 * Cholesky factorisation in f32, and corrections of the residual in twice that precision (iterative refinement; Higham, Accuracy and Stability of
 * Numerical Algorithms, chapter 12). The host waits once where two corrections are enough.
 *
 * @throws {TensorError} `not_positive_definite`, `not_converged`, `shape_mismatch`, `dtype_mismatch`
 */
export const solvePositiveDefinite: (a: Tensor, b: Tensor) => Promise<PreciseSolution> = defineOperation<
  [Tensor, Tensor],
  Promise<PreciseSolution>
>({
  name: "solvePositiveDefinite",
  kernels: CHOLESKY_KERNELS,
  gpu: solveOnGpu,
  cpu: solveOnCpu,
});

/** A solution on its way, and what it misses. */
interface Approximation {
  readonly high: Tensor;
  readonly low: Tensor;
}

async function solveOnGpu(device: GpuDevice, a: Tensor, b: Tensor): Promise<PreciseSolution> {
  matrixShape(b, "solvePositiveDefinite");
  using factor = queueCholesky(device, a);
  using diagonal = device.zeros([a.shape[0]!]);
  const system = { matrix: a, diagonal };
  const x = { high: solveCholesky(factor, b, { side: "right" }), low: device.zeros(b.shape) };
  const dispose = () => [x.high, x.low].forEach((tensor) => tensor.dispose());
  try {
    for (let i = 1; i < UNSEEN; i++) correct(factor, b, x, system, "coarse")[Symbol.dispose]();
    using unseen = correct(factor, b, x, system, "fine");
    let found = await residualOf(b, unseen, factor.pivots);
    let corrections = UNSEEN;
    for (let isProgress = true; isProgress && found > TARGET && corrections < MOST_CORRECTIONS;) {
      using correction = correct(factor, b, x, system, "fine");
      const next = await residualOf(b, correction);
      isProgress = 2 * next <= found;
      if (next >= found) takeBack(x, correction);
      else corrections++;
      found = Math.min(found, next);
    }
    if (!(found <= LARGEST_RESIDUAL)) throw notConverged(found);
    return { ...x, residual: found, corrections, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

/** What was added to an approximation, and what that misses then. */
interface Correction extends Disposable {
  readonly change: Tensor;
  readonly rest: Tensor;
}

/** Adds a correction to x. What x misses then is computed from what it missed before. */
function correct(
  factor: TriangularFactor,
  b: Tensor,
  { high, low }: Approximation,
  system: ShiftedMatrix,
  slicing: Slicing,
): Correction {
  const rest = preciseResidual(b, high, low, system, { slicing });
  const change = solveCholesky(factor, rest, { side: "right" });
  addToPair(high, low, change);
  gemm(change, system.matrix, { alpha: -1, beta: 1, into: rest });
  return { change, rest, [Symbol.dispose]: () => [change, rest].forEach((tensor) => tensor.dispose()) };
}

function takeBack({ high, low }: Approximation, { change }: Correction): void {
  using negated = add(change, change, { alpha: -1, beta: 0 });
  addToPair(high, low, negated);
}

/** ‖rest‖_F / ‖b‖_F, after a look at the pivots. */
async function residualOf(b: Tensor, { rest }: Pick<Correction, "rest">, pivots?: Tensor): Promise<number> {
  using squares = stacked([sumOfSquares(b), sumOfSquares(rest)]);
  const [values, found] = await Promise.all([
    b.device.download(squares),
    pivots ? b.device.download(pivots) : undefined,
  ]);
  if (found) checkedPivots(found);
  return values[0]! > 0 ? Math.sqrt(values[1]! / values[0]!) : 0;
}

/** Numbers one below the other; disposes of them. */
function stacked(numbers: readonly Tensor[]): Tensor {
  const rows = numbers.map((x) => reshape(x, [1, 1]));
  const column = concatRows(rows);
  for (const x of [...numbers, ...rows]) x.dispose();
  return column;
}

async function solveOnCpu(device: CpuDevice, a: Tensor, b: Tensor): Promise<PreciseSolution> {
  using factor = await factorCholesky(a);
  const high = solveCholesky(factor, b, { side: "right" });
  using rest = gemm(high, a, { alpha: -1, beta: 1, into: copy(b) });
  const residual = await residualOf(b, { rest });
  const low = device.zeros(b.shape);
  return {
    high,
    low,
    residual,
    corrections: 0,
    [Symbol.dispose]: () => [high, low].forEach((x) => x.dispose()),
  };
}

function notConverged(residual: number): TensorError {
  return new TensorError(
    "not_converged",
    `refinement ends at a residual of ${residual.toExponential(1)}, expected less than ${LARGEST_RESIDUAL}`,
    "add a larger multiple of the identity: the matrix is too near to a singular one for a factor in f32",
    "solvePositiveDefinite",
  );
}
