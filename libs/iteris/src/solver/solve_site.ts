import { copy, type Device, gemm, qr, type Tensor } from "@lora-loom/tensor";
import { copyTo, multiple } from "../algebra.ts";
import type { RightHandSide } from "../equations.ts";
import type { TruncationKind } from "../options.ts";
import type { BlockFactor, BlockMatrix } from "./block_matrix.ts";
import type { Factor } from "./factor.ts";
import { type MetricTerm, solveWithMetrics } from "./metric.ts";
import { type Solution, truncate } from "./truncate.ts";

/** The rank that a solution may keep. */
export interface Cut {
  /** The most rows the result may have. */
  readonly rank: number;
  readonly truncation: TruncationKind;
}

/** What became of a solution's rank. */
export interface RankReport {
  /** The rank that the equations give: Σr_i, or min(in, out) with drift or stream. */
  readonly solved: number;
  readonly kept: number;
  /** Part of the squared output on the calibration text that truncation lost; 0 without truncation. */
  readonly loss: number;
  /** What plain SVD at the same rank would have lost. */
  readonly plainLoss: number;
}

/** How the system with output metrics was solved. */
export interface MetricReport {
  readonly steps: number;
  /** Relative to the right-hand side. */
  readonly residual: number;
}

/** A site's merged delta W = b·a, and how it was found. */
export interface SiteSolution extends Disposable {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly rank: RankReport;
  readonly metric?: MetricReport;
  readonly backwardError: number;
  readonly iterations: number;
}

/**
 * Solves W G = N + α P at one site and cuts it down to `rank`.
 *
 * @param factor of G + α κ I
 */
export async function solveSite(
  factor: Factor,
  equations: RightHandSide,
  alpha: number,
  { rank, truncation }: Cut,
): Promise<SiteSolution> {
  const { stacked } = equations;
  if (stacked && rank >= stacked.shape[1]!) return await solveWhole(factor, equations, alpha);
  using rows = equations.at(alpha);
  const { x, backwardError, iterations } = await factor.solve(rows);
  const figures = { backwardError, iterations };
  using solution = x;
  using half = factor.half(rows);
  const [out, inner] = stacked ? stacked.shape as [number, number] : [x.shape[0]!, x.shape[0]!];
  const solved = Math.min(inner, out, x.shape[1]!);
  if (!stacked) {
    return await cut({ rows: solution, half, left: undefined }, { rank, truncation }, solved, figures);
  }

  const { left, right } = await orthogonalised(stacked);
  using factorRows = right;
  using solutionRows = gemm(factorRows, solution);
  using halfRows = gemm(factorRows, half);
  using basis = left;
  return await cut(
    { rows: solutionRows, half: halfRows, left: basis },
    { rank, truncation },
    solved,
    figures,
  );
}

/** Solves a system whose solution W = `stacked` · A keeps its rank. */
export async function solveWhole(
  factor: Pick<Factor, "solve">,
  equations: RightHandSide,
  alpha: number,
): Promise<SiteSolution> {
  using rows = equations.at(alpha);
  const { x, backwardError, iterations } = await factor.solve(rows);
  const kept = x.shape[0]!;
  return disposable({
    a: x,
    b: copy(equations.stacked!),
    rank: { solved: kept, kept, loss: 0, plainLoss: 0 },
    backwardError,
    iterations,
  });
}

/** Systems with output metrics at one site. */
export interface MetricSystem {
  /** A task each, on the device where conjugate gradients run. */
  readonly terms: readonly MetricTerm[];
  /** L of F̄ = L Lᵀ, where the factor lives. */
  readonly mean: BlockFactor;
  /** F̄⁻¹ and G⁻¹, where conjugate gradients run. */
  readonly inverseMetric: BlockMatrix;
  readonly inverseGram: Tensor;
  /** G + α κ I, where the factor lives. */
  readonly gram: Tensor;
  readonly mostSteps: number;
}

/**
 * Solves Σ_i F̂_i W G_i = Σ_i F̂_i R_i at one site, from the solution of W G = Σ_i R_i, and cuts it down to `rank` in the norms of F̄ and G.
 *
 * @param factor of G
 * @param right Σ_i R_i, `[out, in]`, where the factor lives
 */
export async function solveSiteWithMetrics(
  factor: Factor,
  right: Tensor,
  system: MetricSystem,
  { rank, truncation }: Cut,
): Promise<SiteSolution> {
  const { x: plain, backwardError, iterations } = await factor.solve(right);
  using start = plain;
  using startThere = await copyTo(system.inverseGram.device, start);
  const { x, steps, residual } = await solveWithMetrics(
    system.terms,
    startThere,
    system.inverseMetric,
    system.inverseGram,
    system.mostSteps,
  );
  using found = x;
  // Without a step the start is the solution, to its last bit.
  using solution = steps === 0 ? multiple(start, 1) : await copyTo(right.device, found);
  using target = steps === 0 ? multiple(right, 1) : gemm(solution, system.gram);
  using rows = system.mean.transposedTimes(solution);
  using weightedTarget = system.mean.transposedTimes(target);
  using half = factor.half(weightedTarget);
  const solved = Math.min(...solution.shape);
  const cutDown = await truncate({ rows, half, left: undefined }, Math.min(rank, solved), truncation);
  using b = cutDown.b;
  const { a, rank: kept, loss, plainLoss } = cutDown;
  return disposable({
    a,
    b: system.mean.transposedSolve(b),
    rank: { solved, kept, loss, plainLoss },
    metric: { steps, residual },
    backwardError,
    iterations,
  });
}

async function cut(
  solution: Solution,
  { rank, truncation }: Cut,
  solved: number,
  figures: { readonly backwardError: number; readonly iterations: number },
): Promise<SiteSolution> {
  const { a, b, rank: kept, loss, plainLoss } = await truncate(solution, Math.min(rank, solved), truncation);
  return disposable({ a, b, rank: { solved, kept, loss, plainLoss }, ...figures });
}

/** stacked = left · right with orthonormal columns on the left; a wide matrix is its own `right`. */
async function orthogonalised(stacked: Tensor): Promise<{ left: Tensor | undefined; right: Tensor }> {
  const [m, n] = stacked.shape as [number, number];
  const device: Device = stacked.device;
  if (m < n) return { left: undefined, right: multiple(stacked, 1) };
  const { q, r } = qr(Float64Array.from(await device.download(stacked)), m, n);
  return { left: device.upload(q, [m, n]), right: device.upload(r, [n, n]) };
}

function disposable(solution: Omit<SiteSolution, keyof Disposable>): SiteSolution {
  return {
    ...solution,
    [Symbol.dispose]() {
      solution.a.dispose();
      solution.b.dispose();
    },
  };
}
