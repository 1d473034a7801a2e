import { coreMethod } from "../datafree/core_method.ts";
import { isPresent, sumOfCores } from "../datafree/core_space.ts";
import { inner, type Matrix, scale } from "../datafree/matrix.ts";
import type { ModuleMethod } from "./method.ts";

/** The mean of cos(X, Y) over all pairs. */
function meanPairwiseCosine(matrices: readonly Matrix[]): number {
  let sum = 0;
  let pairs = 0;
  for (let i = 0; i < matrices.length; i++) {
    for (let j = i + 1; j < matrices.length; j++) {
      const [x, y] = [matrices[i]!, matrices[j]!];
      sum += inner(x, y) / Math.sqrt(inner(x, x) * inner(y, y));
      pairs++;
    }
  }
  return sum / pairs;
}

export const modelStock: ModuleMethod = coreMethod({
  name: "model_stock",
  title: "Model Stock",
  summary:
    "The mean of the adapters, drawn towards the base model the more, the less they agree. Take it for several " +
    "trainings of one task; adapters of different tasks are nearly orthogonal, and little remains.",
  formula:
    "ΔW' = t/T · Σ w_t ΔW_t, t = T c / (1 + (T − 1) c), c = max(0, mean pairwise cosine of the w_t ΔW_t)",
  source: "Jang et al., Model Stock (arXiv 2403.19522)",
  parameters: [],
  merge({ sources }) {
    const present = sources.filter(isPresent);
    const count = present.length;
    const cosine = count < 2
      ? 1
      : Math.max(0, meanPairwiseCosine(present.map(({ core, weight }) => scale(core, Math.sign(weight)))));
    const ratio = count * cosine / (1 + (count - 1) * cosine);
    return {
      core: scale(sumOfCores(sources), count === 0 ? 0 : ratio / count),
      figures: { cosine, ratio },
    };
  },
});
