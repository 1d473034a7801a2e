import type { Adapter, AdapterSpec, BaseModel } from "@lora-loom/formats";
import type { Plan } from "../plan/plan.ts";
import type { Recipe } from "../recipe/recipe.ts";

/** The one value that all give, if they do. */
function agreed<T>(values: readonly T[]): T | undefined {
  return new Set(values).size === 1 ? values[0] : undefined;
}

/** Provenance that other programs look for, in the layouts whose files carry metadata of that kind. */
function metadataOf({ method, adapters, output }: Recipe): Record<string, string> | undefined {
  if (output.format === "peft" || output.format === "mlx") return undefined;
  const names = adapters.map(({ name }) => name);
  return {
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.title": names.join(" + "),
    "modelspec.merged_from": names.join(", "),
    "loom.method": method,
  };
}

/** What the writer of the merged adapter must know. */
export function adapterSpec(
  recipe: Recipe,
  plan: Plan,
  adapters: readonly Adapter[],
  base?: BaseModel,
): AdapterSpec {
  return {
    modules: plan.modules,
    rank: plan.rank,
    dtype: recipe.output.dtype,
    baseModel: plan.baseModelName,
    taskType: agreed(adapters.map(({ taskType }) => taskType)),
    fanInFanOut: adapters[0]!.fanInFanOut,
    metadata: metadataOf(recipe),
    base,
  };
}
