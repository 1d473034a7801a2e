import type { Device } from "@lora-loom/tensor";
import { throwIfCancelled } from "../errors.ts";
import { spectrum } from "../linalg/factored.ts";
import type { Method, ModuleMethod } from "../methods/method.ts";
import type { Plan, PlannedModule } from "../plan/plan.ts";
import { chooseRanks, type ModuleSpectrum, rankPolicy } from "../plan/rank_policy.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { moduleContext } from "./merge_modules.ts";
import { disposeFactors, readModule, uploadModule } from "./module_reader.ts";
import { disposeMerged, downloadMerged } from "./module_writer.ts";

/**
 * The plan with the ranks that the recipe's policy chooses, such as `rank: energy:0.95`. Every module is merged once at the
 * largest rank that it can have, and only the singular values of the result are kept, so memory stays bounded by one
 * module. The plan itself where the rank is a number.
 */
export async function planWithChosenRanks(
  plan: Plan,
  method: Method,
  recipe: Recipe,
  device: Device,
  signal: AbortSignal | undefined,
): Promise<Plan> {
  const policy = rankPolicy(recipe.parameters.rank);
  if (!policy || method.kind !== "module") return plan;
  const spectra: ModuleSpectrum[] = [];
  for (const planned of plan.modules) {
    throwIfCancelled(signal, planned.name);
    spectra.push(await spectrumOf(method, planned, { plan, recipe, device }));
  }
  const ranks = chooseRanks(policy, spectra);
  const modules = plan.modules.map((planned, index) => ({ ...planned, rank: ranks[index]! }));
  return { ...plan, modules, rank: Math.max(...ranks) };
}

async function spectrumOf(
  method: ModuleMethod,
  planned: PlannedModule,
  { plan, recipe, device }: { readonly plan: Plan; readonly recipe: Recipe; readonly device: Device },
): Promise<ModuleSpectrum> {
  const { name, inFeatures, outFeatures } = planned;
  const sources = uploadModule(device, await readModule(planned, recipe));
  try {
    const merged = await method.merge(sources, moduleContext(planned, { plan, recipe, device }));
    const rank = merged.a.shape[0]!;
    try {
      const { a, b } = await downloadMerged(device, name, merged);
      return {
        sigma: spectrum({ rank, inFeatures, outFeatures, scale: 1, a, b }),
        cost: inFeatures + outFeatures,
      };
    } finally {
      disposeMerged(merged);
    }
  } finally {
    disposeFactors(sources);
  }
}
