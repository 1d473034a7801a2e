/**
 * `target_modules` for a set of modules. The usual short form is a list of last names (`q_proj`), which PEFT applies to
 * every layer of the model; that is only right where the modules are those of all layers. What can be seen without the
 * model is that the layers run from 0 on without a gap; otherwise the modules are named in full.
 */
export function targetsOf(modules: readonly string[]): string[] {
  const layersOfFamily = new Map<string, Set<number>>();
  for (const module of modules) {
    const [family, layer] = firstNumber(module);
    if (layer === undefined) continue;
    layersOfFamily.set(family, (layersOfFamily.get(family) ?? new Set()).add(layer));
  }
  const sets = [...layersOfFamily.values()];
  const coversAllLayers = sets.every((layers) => Math.max(...layers) === layers.size - 1);
  return [...new Set(coversAllLayers ? modules.map(lastName) : modules)].sort();
}

/** The name with its first numeric part masked, and that number. */
function firstNumber(module: string): [family: string, layer: number | undefined] {
  const parts = module.split(".");
  const index = parts.findIndex((part) => /^\d+$/.test(part));
  return index < 0 ? [module, undefined] : [parts.with(index, "*").join("."), Number(parts[index])];
}

function lastName(module: string): string {
  const parts = module.split(".");
  const last = parts.at(-1)!;
  // `to_out.0`: a number alone would match modules all over the model.
  return /^\d+$/.test(last) && parts.length > 1 ? parts.slice(-2).join(".") : last;
}
