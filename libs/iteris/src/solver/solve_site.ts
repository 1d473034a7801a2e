import { type Device, gemm, qr, type Tensor } from "@lora-loom/tensor";
import { multiple } from "../algebra.ts";
import type { RightHandSide } from "../equations.ts";
import type { TruncationKind } from "../options.ts";
import type { Factor } from "./factor.ts";
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

/** A site's merged delta W = b·a, and how it was found. */
export interface SiteSolution extends Disposable {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly rank: RankReport;
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
  using rows = equations.at(alpha);
  const { x, backwardError, iterations } = await factor.solve(rows);
  const { stacked } = equations;
  const figures = { backwardError, iterations };
  if (stacked && rank >= x.shape[0]!) {
    const kept = x.shape[0]!;
    return disposable({
      a: x,
      b: multiple(stacked, 1),
      rank: { solved: kept, kept, loss: 0, plainLoss: 0 },
      ...figures,
    });
  }
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
