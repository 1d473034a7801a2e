import type { TruncationKind } from "@lora-loom/iteris";
import type { Parameters } from "../methods/method.ts";
import type { ParameterSpec } from "../methods/parameters.ts";

/** Rank of the merged adapter: the sum of the ranks unless the recipe asks for less. */
export function calibratedRank(
  ranks: readonly number[],
  parameters: Parameters,
): number {
  const sum = ranks.reduce((total, rank) => total + rank, 0);
  return typeof parameters.rank === "number" ? Math.min(parameters.rank, sum) : sum;
}

/** The same where corrections make the solution one of full rank, so that a recipe may ask for more than the sum of the ranks. */
export function correctedRank(ranks: readonly number[], parameters: Parameters): number {
  const corrects = parameters.drift === true || parameters.stream === true;
  return corrects && typeof parameters.rank === "number"
    ? parameters.rank
    : calibratedRank(ranks, parameters);
}

/** The parameters that decide the rank, as the solver takes them. */
export function rankOptions({ rank, truncation }: Parameters): { rank?: number; truncation: TruncationKind } {
  return { truncation: truncation as TruncationKind, ...(typeof rank === "number" ? { rank } : {}) };
}

/** Parameters that both methods share. */
export const COMMON_PARAMETERS: readonly ParameterSpec[] = [
  {
    name: "samples",
    type: "integer",
    minimum: 1,
    default: 50,
    help: "Rows of each calibration file to use, from the first one on. More cost time, not memory.",
  },
  {
    name: "rank",
    type: "integer",
    minimum: 1,
    defaultText: "Σ r_i",
    help:
      "Rank of the merged adapter; where it is smaller than the solution's, the best approximation weighted with the Gram matrix is taken.",
    formula: "W_r = U Uᵀ W, U = leading eigenvectors of W G Wᵀ",
  },
  {
    name: "truncation",
    type: "choice",
    choices: ["weighted", "plain"],
    default: "weighted",
    help:
      "How a smaller rank is reached: weighted keeps the outputs on real inputs, plain (SVD of W alone) is there to compare.",
  },
  {
    name: "alpha",
    type: "number",
    minimum: 0,
    keywords: ["auto"],
    default: 1e-4,
    help:
      "Strength of the regulariser, relative to the norm of each task's Gram matrix; auto keeps every fifth sample out and takes what fits those best.",
    formula: "G = Σ_i c_i (S_i + α ‖S_i‖_F I)",
  },
  {
    name: "max_new_tokens",
    type: "integer",
    minimum: 1,
    default: 32,
    help: "Longest answer, in tokens, that an adapter gives to a calibration prompt.",
  },
  {
    name: "agreement_prompts",
    type: "integer",
    minimum: 0,
    default: 100,
    help:
      "Prompts of each file, after the calibration rows, on which to measure how often the merge answers as the adapter does; 0 turns that off.",
  },
];
