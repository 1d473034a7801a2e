import { coreMethod, noiseOf } from "../datafree/core_method.ts";
import { isPresent, sumOfCores } from "../datafree/core_space.ts";
import {
  decompose,
  diagonal,
  type Matrix,
  multiply,
  norm,
  scale,
  sideBySide,
  transpose,
  weightedSum,
} from "../datafree/matrix.ts";
import type { ModuleMethod } from "./method.ts";

/** I + U diag(α − 1) Uᵀ: shrinks output directions that carry more than their share of the stacked B's. */
function calibration(outputs: readonly Matrix[], noise: number): { matrix: Matrix; smallest: number } {
  const { left, sigma } = decompose(sideBySide(outputs), noise);
  const total = sigma.reduce((sum, value) => sum + value ** 2, 0);
  const shrink = sigma.map((value) => 1 / (1 + (outputs.length - 1) * value ** 2 / total));
  const identity = diagonal(new Float64Array(left.rows).fill(1));
  const change = multiply(multiply(left, diagonal(shrink.map((alpha) => alpha - 1))), transpose(left));
  return { matrix: weightedSum([identity, change], [1, 1]), smallest: Math.min(1, ...shrink) };
}

export const pico: ModuleMethod = coreMethod({
  name: "pico",
  title: "Pico",
  summary:
    "Weakens the output directions that many adapters share before summing, so that they do not drown what only " +
    "one adapter does, and brings the result back to the adapters' mean length.",
  formula: "[s_1 B_1 … s_T B_T] = U diag(σ) Vᵀ; α_j = 1/(1 + (T − 1) σ_j²/Σσ²); C = I + U diag(α − 1) Uᵀ; " +
    "ΔW' = f · Σ w_t C ΔW_t, f so that ‖ΔW'‖ = mean ‖w_t ΔW_t‖",
  source: "Tang and Yang, Crowded in B-Space (arXiv 2604.16826)",
  parameters: [],
  merge({ sources: all, left: { device } }) {
    const sources = all.filter(isPresent);
    if (sources.length === 0) return { core: sumOfCores(all) };
    const { matrix, smallest } = calibration(sources.map(({ b }) => b), noiseOf(device));
    const calibrated = sources.map(({ core }) => multiply(matrix, core));
    const sum = weightedSum(calibrated, sources.map(({ weight }) => weight));
    const length = sources.reduce((total, { core, weight }) => total + Math.abs(weight) * norm(core), 0) /
      sources.length;
    const found = norm(sum);
    return { core: scale(sum, found === 0 ? 0 : length / found), figures: { strongest_shrinking: smallest } };
  },
});
