import { coreMethod, noiseOf, withFixedRank } from "../datafree/core_method.ts";
import { isPresent, sumOfCores } from "../datafree/core_space.ts";
import {
  decompose,
  leading,
  multiply,
  nearestIsometry,
  scale,
  sideBySide,
  transpose,
  weightedSum,
} from "../datafree/matrix.ts";
import type { ModuleMethod } from "./method.ts";
import type { NumberParameter } from "./parameters.ts";

const SOURCE = "Marczak et al., No Task Left Behind: Isotropic Model Merging (arXiv 2502.04959)";

function mean(values: ArrayLike<number>): number {
  return values.length === 0 ? 0 : Array.from(values).reduce((sum, value) => sum + value, 0) / values.length;
}

export const isoC: ModuleMethod = coreMethod({
  name: "iso_c",
  title: "isotropic merging",
  summary:
    "Gives every direction of the sum the same strength, so that strong adapters do not drown weak ones. " +
    "It loses much when cut to a small rank, since no direction is dispensable any more.",
  formula: "Σ w_t ΔW_t = U diag(σ) Vᵀ; ΔW' = σ̄ U Vᵀ, σ̄ the mean of the nonzero σ",
  source: SOURCE,
  parameters: [],
  merge({ sources, left: { device } }, { rank }) {
    const spectrum = decompose(sumOfCores(sources), noiseOf(device));
    const kept = leading(spectrum, rank);
    const strength = mean(spectrum.sigma);
    return { core: scale(multiply(kept.left, kept.right), strength), figures: { strength } };
  },
});

const COMMON: NumberParameter = {
  name: "common",
  type: "number",
  minimum: 0,
  maximum: 1,
  default: 0.8,
  help: "part of the rank that goes to directions of the sum; the rest is shared among the adapters' own",
};

export const isoCts: ModuleMethod = withFixedRank(coreMethod({
  name: "iso_cts",
  title: "isotropic merging in common and task-specific subspaces",
  summary: "As iso_c, but keeps room for directions that single adapters have beside the common ones.",
  formula:
    "U₀, V₀: the k₀ leading singular vectors of Σ w_t ΔW_t; U_t, V_t, σ_t: the s leading ones of (I − U₀U₀ᵀ) w_t ΔW_t; " +
    "U⊥, V⊥: nearest isometries of [U₀ U_1 … U_T], [V₀ V_1 … V_T]; ΔW' = σ̄ U⊥ V⊥ᵀ, σ̄ the mean of all these σ",
  source: SOURCE,
  parameters: [COMMON],
  merge({ sources: all, left: { device } }, { rank, parameters }) {
    const noise = noiseOf(device);
    const sources = all.filter(isPresent);
    const share = Math.floor((1 - (parameters.common as number)) * rank / Math.max(1, sources.length));
    const common = leading(decompose(sumOfCores(all), noise), rank - share * sources.length);
    const parts = [
      common,
      ...sources.map(({ core, weight }) => {
        const own = scale(core, weight);
        const projected = multiply(common.left, multiply(transpose(common.left), own));
        return leading(decompose(weightedSum([own, projected], [1, -1]), noise), share);
      }),
    ].filter(({ sigma }) => sigma.length > 0);
    if (parts.length === 0) return { core: sumOfCores(all) };
    const strength = mean(parts.flatMap(({ sigma }) => [...sigma]));
    const left = nearestIsometry(sideBySide(parts.map((part) => part.left)), noise);
    const right = nearestIsometry(sideBySide(parts.map((part) => transpose(part.right))), noise);
    return {
      core: scale(multiply(left, transpose(right)), strength),
      figures: { strength, common_directions: common.sigma.length, own_directions: share },
    };
  },
}));
