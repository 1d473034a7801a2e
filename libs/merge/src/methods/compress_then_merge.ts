import { coreMethod, noiseOf, withFixedRank } from "../datafree/core_method.ts";
import {
  decompose,
  leading,
  type Matrix,
  multiply,
  norm,
  scale,
  sideBySide,
  transpose,
} from "../datafree/matrix.ts";
import { MERGE_PARAMETERS, mergeEntries } from "../datafree/merge_entries.ts";
import { largestRank } from "./truncate.ts";
import type { ModuleMethod } from "./method.ts";
import type { NumberParameter } from "./parameters.ts";

const BETA: NumberParameter = {
  name: "beta",
  type: "number",
  minimum: 0,
  maximum: 1,
  default: 0,
  help: "how much of the adapters' own norms counts when the common directions are sought: 0 nothing, 1 all",
  formula: "‖·‖ ← β ‖ΔW_t‖ + (1 − β) mean ‖ΔW_t‖",
};

const ITERATIONS = 100;
/** Stop when an iteration explains no more than this part of the energy in addition. */
const GAIN = 1e-12;

/** The leading left singular vectors of [X_1 … X_T], `[rows, ≤ k]`. */
function commonOutputs(matrices: readonly Matrix[], k: number, noise: number): Matrix {
  return leading(decompose(sideBySide(matrices), noise), k).left;
}

/**
 * Orthonormal U and V of k columns each that keep the most of Σ ‖Uᵀ X_t V‖²: HOSVD, then alternating least squares (HOOI;
 * De Lathauwer, De Moor, Vandewalle 2000).
 */
function sharedSubspaces(
  matrices: readonly Matrix[],
  k: number,
  noise: number,
): { outputs: Matrix; inputs: Matrix } {
  const flipped = matrices.map(transpose);
  let outputs = commonOutputs(matrices, k, noise);
  let inputs = commonOutputs(flipped, k, noise);
  const total = matrices.reduce((sum, matrix) => sum + norm(matrix) ** 2, 0);
  let explained = -Infinity;
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    outputs = commonOutputs(matrices.map((matrix) => multiply(matrix, inputs)), k, noise);
    inputs = commonOutputs(flipped.map((matrix) => multiply(matrix, outputs)), k, noise);
    const energy = matrices.reduce(
      (sum, matrix) => sum + norm(multiply(multiply(transpose(outputs), matrix), inputs)) ** 2,
      0,
    );
    if (energy - explained <= GAIN * total) break;
    explained = energy;
  }
  return { outputs, inputs };
}

const method = withFixedRank(coreMethod({
  name: "compress_then_merge",
  title: "Compress then Merge",
  summary:
    "Finds the k input and k output directions that serve all adapters best and merges there, entry by entry: the " +
    "result has rank k without being cut afterwards.",
  formula:
    "U, V (k columns each) maximise Σ ‖Uᵀ X_t V‖², X_t = ΔW_t brought to one norm; C_t = Uᵀ ΔW_t V; ΔW' = U merge(C_1, …, C_T) Vᵀ",
  source: "He et al., Compress then Merge (arXiv 2606.03723)",
  parameters: [BETA, ...MERGE_PARAMETERS],
  merge({ sources, left: { device } }, context) {
    const norms = sources.map(({ core }) => norm(core));
    const present = sources.filter((_, t) => norms[t]! > 0);
    if (present.length === 0) return { core: sources[0]!.core };
    const mean = norms.reduce((sum, value) => sum + value, 0) / present.length;
    const beta = context.parameters.beta as number;
    const equalised = present.map(({ core }) => scale(core, beta + (1 - beta) * mean / norm(core)));
    const { outputs, inputs } = sharedSubspaces(equalised, context.rank, noiseOf(device));
    const projected = present.map(({ core, weight, adapter }) => ({
      matrix: multiply(multiply(transpose(outputs), core), inputs),
      weight,
      adapter,
    }));
    const total = norms.reduce((sum, value) => sum + value ** 2, 0);
    const kept = projected.reduce((sum, { matrix }) => sum + norm(matrix) ** 2, 0);
    return {
      core: multiply(multiply(outputs, mergeEntries(projected, context)), transpose(inputs)),
      figures: { energy_in_shared_subspaces: kept / total },
    };
  },
}));

export const compressThenMerge: ModuleMethod = {
  ...method,
  parameters: method.parameters.map((spec) =>
    spec.name === "rank" ? { ...spec, defaultText: "the largest rank among the adapters" } : spec
  ),
  outputRank: (ranks, { rank }) => largestRank(ranks, rank),
};
