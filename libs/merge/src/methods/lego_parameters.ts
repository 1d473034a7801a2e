import type { ResolvedOptions } from "@lora-loom/lego";
import { MergeError } from "../errors.ts";
import { rankPolicy } from "../plan/rank_policy.ts";
import type { Parameters, PlannedRanks } from "./method.ts";
import type { ParameterSpec } from "./parameters.ts";

/** The parameters of `lego` and `lego+`, which differ only in their defaults. */
export function legoParameters(preset: ResolvedOptions): readonly ParameterSpec[] {
  return [
    {
      name: "rank",
      type: "integer",
      minimum: 1,
      defaultText: "twice the mean rank, at most Σr",
      help: "k of the paper: the number of clusters, which is the rank of the result",
      formula: "1 ≤ k ≤ N = Σ r_t",
    },
    {
      name: "output_scale",
      type: "number",
      keywords: ["sqrt(r/k)", "sqrt(N/k)", "frobenius", "none"],
      default: preset.output_scale,
      help: "one factor for the whole result; frobenius brings it to the adapters' mean norm",
      formula: "ΔW' ← f · ΔW', r = mean rank, N = Σ r_t",
    },
    {
      name: "parameter_reweight",
      type: "choice",
      choices: ["inf", "l2", "none"],
      default: preset.parameter_reweight,
      help: "the norm that a cluster's representative gets back",
      formula: "μ ← μ · mean ‖x_i‖ / ‖μ‖",
    },
    {
      name: "features",
      type: "choice",
      choices: ["raw", "unit"],
      default: preset.features,
      help: "what clustering sees of a and b: as they are, or divided by their norms",
    },
    {
      name: "kernel",
      type: "choice",
      choices: ["sum", "product"],
      default: preset.kernel,
      help: "similarity of two units: of the vectors [a; b], or of the rank-one deltas b aᵀ",
      formula: "⟨a_i, a_j⟩ + ⟨b_i, b_j⟩ or ⟨a_i, a_j⟩ · ⟨b_i, b_j⟩",
    },
    {
      name: "representative",
      type: "choice",
      choices: ["mean", "svd"],
      default: preset.representative,
      help: "what stands for a cluster: the mean, or the leading singular pair of its summed deltas",
    },
    {
      name: "basis",
      type: "choice",
      choices: ["native", "svd"],
      default: preset.basis,
      help: "what a unit is: a rank as stored, or a singular triplet of the delta",
    },
    {
      name: "alpha_fold",
      type: "choice",
      choices: ["b", "sqrt", "none"],
      default: preset.alpha_fold,
      help: "where scale times weight goes before clustering: into b, as a root into both, or nowhere",
    },
    {
      name: "sign",
      type: "choice",
      choices: ["none", "argmax", "kernel"],
      default: preset.sign,
      help:
        "which of (a, b) and (−a, −b) a unit is: as stored, largest entry of a positive, or by its cluster",
    },
    {
      name: "optimizer",
      type: "choice",
      choices: ["ward", "kmeans"],
      default: preset.optimizer,
      help: "Ward linkage with Hartigan moves (deterministic), or seeded k-means",
    },
    {
      name: "initialisation",
      type: "choice",
      choices: ["k-means++", "random"],
      default: preset.initialisation,
      help: "how seeded starts choose their first centroids",
    },
    {
      name: "restarts",
      type: "integer",
      minimum: 0,
      maximum: 1000,
      default: preset.restarts,
      help: "seeded starts besides the first; the best is kept",
    },
    {
      name: "max_iterations",
      type: "integer",
      minimum: 1,
      default: preset.max_iterations,
      help: "most iterations of one start",
    },
    {
      name: "one_per_adapter",
      type: "boolean",
      default: preset.one_per_adapter,
      help: "at most one unit of each adapter in a cluster; needs a rank of at least the largest adapter's",
    },
  ];
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** The rank k of one module: as asked, else twice the mean rank; never more than the pool has. */
export function legoRank(ranks: readonly number[], parameters: Parameters): number {
  const pooled = sum(ranks);
  const wanted = parameters.rank as number | undefined ?? Math.round(2 * pooled / ranks.length);
  return Math.min(wanted, pooled);
}

/**
 * Refuses a rank that no module can give; modules that fewer adapters have may give less.
 *
 * @throws {MergeError} `rank_out_of_range`
 */
export function checkPooledRank(method: string, { modules }: PlannedRanks, parameters: Parameters): void {
  // A policy has no rank to refuse.
  const rank = rankPolicy(parameters.rank) ? undefined : parameters.rank as number | undefined;
  const largest = Math.max(...modules.map(({ ranks }) => sum(ranks)));
  if (rank === undefined || rank <= largest) return;
  throw new MergeError(
    "rank_out_of_range",
    `${method} cannot give rank ${rank}: the adapters' ranks add up to ${largest}`,
    `choose a rank from 1 to ${largest}, for example --set parameters.rank=${largest}`,
    "parameters.rank",
  );
}
