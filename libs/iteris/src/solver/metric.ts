import { add, dot, gemm, reshape, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import { accumulate, innerProduct, multiple, plus } from "../algebra.ts";
import { Scalars } from "../scalars.ts";
import type { BlockMatrix } from "./block_matrix.ts";

/** One task's part of Σ_i F̂_i W G_i = Σ_i F̂_i R_i. */
export interface MetricTerm {
  /** F̂_i, `[out, out]` */
  readonly metric: BlockMatrix;
  /** G_i = c_i (S_i + α n_i I), `[in, in]` */
  readonly gram: Tensor;
  /** R_i = c_i (Y_iᵀ D_i X̃ᵢ + α n_i W_i), `[out, in]` */
  readonly right: Tensor;
}

/** How a metric's system was solved. */
export interface MetricSolved {
  readonly x: Tensor;
  /** Conjugate-gradient steps; 0 where the start solves the system already, as it does where all metrics are equal. */
  readonly steps: number;
  /** ‖Σ_i F̂_i (R_i − W G_i)‖_F / ‖Σ_i F̂_i R_i‖_F */
  readonly residual: number;
}

/** A residual that is rounding, relative to the right-hand side. */
const REDUCTION = { cpu: 1e-10, webgpu: 1e-5 };

/**
 * Solves Σ_i F̂_i W G_i = Σ_i F̂_i R_i for W by conjugate gradients from a start that is near already, preconditioned by
 * Z → F̄⁻¹ Z G⁻¹ with F̄ the mean of the F̂_i and G = Σ_i G_i: exact where all F̂_i are equal.
 *
 * @param inverseMetric F̄⁻¹
 * @param inverseGram G⁻¹
 */
export async function solveWithMetrics(
  terms: readonly MetricTerm[],
  start: Tensor,
  inverseMetric: BlockMatrix,
  inverseGram: Tensor,
  mostSteps: number,
): Promise<MetricSolved> {
  using right = sumOf(terms, ({ right }) => reshape(right, right.shape));
  const x = multiple(start, 1);
  using image = sumOf(terms, ({ gram }) => gemm(x, gram));
  using residual = plus(right, image, -1);
  using direction = precondition(residual, inverseMetric, inverseGram);
  using scalars = new Scalars();
  let size = 0, norm = 0, energy = 0;
  scalars.add(sumOfSquares(right), (square) => size = Math.sqrt(square) || 1);
  scalars.add(sumOfSquares(residual), (square) => norm = Math.sqrt(square));
  scalars.add(dot(residual, direction), (product) => energy = product);
  await scalars.settle();
  const enough = REDUCTION[start.device.info.backend] * size;
  let steps = 0;
  while (norm > enough && steps < mostSteps && energy > 0) {
    using moved = sumOf(terms, ({ gram }) => gemm(direction, gram));
    const curvature = await innerProduct(direction, moved);
    // In f32, what is left may be rounding alone.
    if (!(curvature > 0)) break;
    const length = energy / curvature;
    accumulate(x, direction, length);
    accumulate(residual, moved, -length);
    steps++;
    using preconditioned = precondition(residual, inverseMetric, inverseGram);
    const before = energy;
    scalars.add(sumOfSquares(residual), (square) => norm = Math.sqrt(square));
    scalars.add(dot(residual, preconditioned), (product) => energy = product);
    await scalars.settle();
    add(preconditioned, direction, { beta: energy / before, into: direction });
  }
  return { x, steps, residual: norm / size };
}

/** Σ_i F̂_i · part_i */
function sumOf(terms: readonly MetricTerm[], part: (term: MetricTerm) => Tensor): Tensor {
  let sum: Tensor | undefined;
  for (const term of terms) {
    using inner = part(term);
    sum = term.metric.times(inner, sum);
  }
  return sum!;
}

function precondition(rows: Tensor, inverseMetric: BlockMatrix, inverseGram: Tensor): Tensor {
  using left = inverseMetric.times(rows);
  return gemm(left, inverseGram);
}
