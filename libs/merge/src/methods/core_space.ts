import { coreMethod, noiseOf } from "../datafree/core_method.ts";
import { decompose, type Matrix, multiply, sideBySide, transpose } from "../datafree/matrix.ts";
import { MERGE_PARAMETERS, mergeEntries } from "../datafree/merge_entries.ts";
import type { ModuleMethod } from "./method.ts";

/** [X_1; X_2; …] for matrices with equally many columns. */
function stacked(parts: readonly Matrix[]): Matrix {
  return transpose(sideBySide(parts.map(transpose)));
}

export const coreSpace: ModuleMethod = coreMethod({
  name: "core_space",
  title: "merging in the Core Space",
  summary:
    "Merges entry by entry as TIES or DARE do, but in the adapters' common basis of Σ r directions, where the " +
    "adapters are aligned and the result is of low rank by itself.",
  formula:
    "[s_1 B_1 … s_T B_T] = U Σ_B Pᵀ; [A_1; …; A_T] = Q Σ_A Vᵀ; M_t = Uᵀ ΔW_t V; ΔW' = U merge(M_1, …, M_T) Vᵀ",
  source: "Panariello et al., Core Space Merging (arXiv 2509.17786)",
  parameters: MERGE_PARAMETERS,
  merge({ sources, left: { device } }, context) {
    const noise = noiseOf(device);
    const outputs = decompose(sideBySide(sources.map(({ b }) => b)), noise).left;
    const inputs = transpose(decompose(stacked(sources.map(({ a }) => a)), noise).right);
    if (outputs.columns === 0 || inputs.columns === 0) return { core: sources[0]!.core };
    const aligned = sources.map(({ core, weight, adapter }) => ({
      matrix: multiply(multiply(transpose(outputs), core), inputs),
      weight,
      adapter,
    }));
    const merged = mergeEntries(aligned, context);
    return { core: multiply(multiply(outputs, merged), transpose(inputs)) };
  },
});
