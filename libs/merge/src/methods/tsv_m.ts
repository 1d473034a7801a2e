import { coreMethod, noiseOf } from "../datafree/core_method.ts";
import {
  decompose,
  diagonal,
  leading,
  multiply,
  nearestIsometry,
  sideBySide,
  transpose,
} from "../datafree/matrix.ts";
import type { ModuleMethod } from "./method.ts";

export const tsvM: ModuleMethod = coreMethod({
  name: "tsv_m",
  title: "TSV-Merge",
  summary:
    "Makes the adapters' singular vectors orthogonal to each other before they are summed, which removes the " +
    "interference of adapters that use the same directions.",
  formula:
    "ΔW_t = U_t diag(σ_t) V_tᵀ, cut to its ⌊min(in, out)/T⌋ leading triplets; U⊥, V⊥: nearest isometries of " +
    "[U_1 … U_T], [V_1 … V_T]; ΔW' = U⊥ diag(w_1 σ_1, …, w_T σ_T) V⊥ᵀ",
  source: "Gargiulo et al., Task Singular Vectors (arXiv 2412.00081)",
  parameters: [],
  merge({ sources, left, right }) {
    const noise = noiseOf(left.device);
    const share = Math.floor(Math.min(left.shape[1]!, right.shape[1]!) / sources.length);
    const parts = sources.map(({ core, weight }) => ({ weight, ...leading(decompose(core, noise), share) }));
    const present = parts.filter(({ sigma }) => sigma.length > 0);
    if (present.length === 0) return { core: sources[0]!.core };
    const outputs = nearestIsometry(sideBySide(present.map((part) => part.left)), noise);
    const inputs = nearestIsometry(sideBySide(present.map((part) => transpose(part.right))), noise);
    const strengths = present.flatMap(({ sigma, weight }) => Array.from(sigma, (value) => weight * value));
    return { core: multiply(multiply(outputs, diagonal(strengths)), transpose(inputs)) };
  },
});
