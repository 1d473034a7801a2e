import { gemm, type Tensor } from "@lora-loom/tensor";
import { innerProduct, multiple } from "../algebra.ts";
import type { RightHandSide } from "../equations.ts";
import type { Conditioning } from "./factor.ts";
import { factorise } from "./factorise.ts";
import { IterisError } from "../errors.ts";

/** The values that `alpha: auto` tries. */
export const ALPHA_GRID: readonly number[] = [1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1];

/** One tried value. */
export interface AlphaScore {
  readonly alpha: number;
  /** Σ c_i ‖Y_i − X̃ᵢ Wᵀ‖² on the samples kept out, relative to Σ c_i ‖Y_i‖²: 1 is what no adapter gives. */
  readonly loss: number;
}

/** The equations of some sites that share a Gram matrix, from some of the samples. */
export interface SharedEquations {
  /** Σ c_i S_i. */
  readonly gram: Tensor;
  /** κ. */
  readonly ridge: number;
  readonly sites: readonly RightHandSide[];
}

/**
 * Scores every α of the grid for every site: fits on one part of the samples, measures on the other.
 *
 * @param targetEnergies Σ c_i ‖Y_i‖² of each site on the samples kept out
 * @returns the curve of each site, in the order of the grid; values whose system is singular are left out
 */
export async function scoreAlphas(
  fit: SharedEquations,
  heldOut: SharedEquations,
  targetEnergies: readonly number[],
  conditioning: Conditioning,
): Promise<AlphaScore[][]> {
  const curves: AlphaScore[][] = fit.sites.map(() => []);
  for (const alpha of ALPHA_GRID) {
    using factor = await factoriseIfPossible(fit, alpha, conditioning);
    if (!factor) continue;
    for (const [index, equations] of fit.sites.entries()) {
      using rows = equations.at(alpha);
      const { x } = await factor.solve(rows);
      using solution = x;
      const energy = targetEnergies[index]!;
      const gain = await lossWithoutConstant(solution, equations, heldOut.sites[index]!, heldOut.gram);
      curves[index]!.push({ alpha, loss: energy > 0 ? (energy + gain) / energy : 0 });
    }
  }
  return curves;
}

/** The value with the smallest loss; the largest of equals. */
export function bestAlpha(curve: readonly AlphaScore[], where: string): number {
  const [first] = curve;
  if (!first) {
    throw new IterisError(
      "singular_system",
      "no alpha of the grid gives a regular system",
      "use more samples",
      where,
    );
  }
  return curve.reduce((best, score) => score.loss <= best.loss ? score : best, first).alpha;
}

async function factoriseIfPossible(
  { gram, ridge }: SharedEquations,
  alpha: number,
  conditioning: Conditioning,
) {
  try {
    return await factorise(gram, alpha * ridge, { ...conditioning, regularised: true });
  } catch (error) {
    if (error instanceof IterisError && error.code === "singular_system") return undefined;
    throw error;
  }
}

/** −2⟨W, N⟩ + ⟨W G, W⟩ for the dense W, N that both are `stacked` times what is solved for. */
async function lossWithoutConstant(
  solution: Tensor,
  { stacked }: RightHandSide,
  heldOut: RightHandSide,
  gram: Tensor,
): Promise<number> {
  using dense = stacked ? gemm(stacked, solution) : multiple(solution, 1);
  using target = stacked ? gemm(stacked, heldOut.target) : multiple(heldOut.target, 1);
  using image = gemm(dense, gram);
  return await innerProduct(image, dense) - 2 * await innerProduct(target, dense);
}
