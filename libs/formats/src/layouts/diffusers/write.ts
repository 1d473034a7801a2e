import type { AdapterSpec, AdapterWriter, ModuleKeys, ModuleSpec } from "../../adapter.ts";
import { type Component, splitComponent } from "../../names/components.ts";
import { STORED_NAME } from "../../numbers/narrow.ts";
import { createSafetensorsWriter } from "../../safetensors/write.ts";
import { factorShapes, refuseForms } from "../factors/form.ts";
import { checkSpec, entriesOf, FactorWriter, type StoredModule } from "../factors/write.ts";
import { peftConfig } from "../peft/write.ts";
import { ADAPTER_METADATA } from "./metadata.ts";
import { diffusersName } from "./paths.ts";

export const WEIGHTS = "pytorch_lora_weights.safetensors";

/**
 * Creates a diffusers file: PEFT's endings, the component in front, each component's configuration in the metadata.
 * Versions of diffusers that do not read these assume one rank and alpha = rank, so all modules of a component get one
 * rank, and scales other than 1 are multiplied into B.
 *
 * @throws {FormatError} `form_unsupported`, `invalid_rank`, `no_modules`, `duplicate_key`, `target_exists`, …
 */
export async function createDiffusersWriter(weights: string, spec: AdapterSpec): Promise<AdapterWriter> {
  checkSpec(spec, weights);
  refuseForms(spec.modules, ["embedding"], "diffusers", weights);
  const components = groupByComponent(spec);
  const stored = new Map<string, StoredModule>();
  for (const { rank, modules } of components.values()) {
    for (const module of modules) stored.set(module.name, storedModule(module, rank, weights));
  }
  const metadata = {
    ...spec.metadata,
    format: "pt",
    [ADAPTER_METADATA]: adapterMetadata(spec, components),
  };
  const sink = await createSafetensorsWriter(
    weights,
    entriesOf(stored.values(), STORED_NAME[spec.dtype]),
    metadata,
  );
  return new FactorWriter(spec, sink, stored);
}

interface ComponentModules {
  rank: number;
  readonly modules: ModuleSpec[];
}

function groupByComponent(spec: AdapterSpec): Map<Component, ComponentModules> {
  const groups = new Map<Component, ComponentModules>();
  for (const module of spec.modules) {
    const component = splitComponent(diffusersName(module.name)).component!;
    const group = groups.get(component) ?? { rank: 1, modules: [] };
    group.rank = Math.max(group.rank, module.rank ?? spec.rank);
    group.modules.push(module);
    groups.set(component, group);
  }
  return groups;
}

function storedModule(module: ModuleSpec, rank: number, where: string): StoredModule {
  const keys = module.keys ?? keysOf(module);
  const shapes = factorShapes(module, rank, where);
  return {
    rank,
    factor: module.scale ?? 1,
    a: { name: keys.a, shape: shapes.a },
    b: { name: keys.b, shape: shapes.b },
    constants: [],
  };
}

function keysOf({ name }: ModuleSpec): ModuleKeys {
  const path = diffusersName(name);
  return { a: `${path}.lora_A.weight`, b: `${path}.lora_B.weight` };
}

/** PEFT's configuration of each component, every key with the component in front. */
function adapterMetadata(spec: AdapterSpec, components: ReadonlyMap<Component, ComponentModules>): string {
  const members = [...components].flatMap(([component, { rank, modules }]) => {
    const inside = modules.map((module) => ({
      ...module,
      name: splitComponent(diffusersName(module.name)).path,
      scale: 1,
    }));
    const config = peftConfig({ ...spec, modules: inside, rank, targetModules: undefined });
    return Object.entries(config).map(([key, value]) => [`${component}.${key}`, value] as const);
  });
  return JSON.stringify(Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1))), null, 2);
}
