import { dirname, join } from "node:path";
import type { AdapterSpec, AdapterWriter, ModuleSpec } from "../../adapter.ts";
import { writeFileAtomic } from "../../io/write_file_atomic.ts";
import { splitComponent } from "../../names/components.ts";
import { STORED_NAME } from "../../numbers/narrow.ts";
import { createSafetensorsWriter } from "../../safetensors/write.ts";
import { refuseForms } from "../factors/form.ts";
import { commonScale } from "../factors/scale.ts";
import { checkSpec, entriesOf, FactorWriter, type StoredModule, transpose } from "../factors/write.ts";

export const WEIGHTS = "adapters.safetensors";
const CONFIG = "adapter_config.json";
/** The path of a module inside its layer. */
const IN_LAYER = /^(?:.*\.)?layers\.\d+\.(.+)$/;

/**
 * Creates an MLX adapter: one rank, one scale, which is that of all modules or 1 with the scales multiplied into B.
 *
 * @throws {FormatError} `form_unsupported`, `invalid_rank`, `no_modules`, `duplicate_key`, `target_exists`, …
 */
export async function createMlxWriter(weights: string, spec: AdapterSpec): Promise<AdapterWriter> {
  checkSpec(spec, weights);
  refuseForms(spec.modules, ["conv"], "MLX", weights);
  const scale = commonScale(spec.modules) ?? 1;
  const stored = new Map(spec.modules.map((module) => [module.name, storedModule(module, spec.rank, scale)]));
  const metadata = { ...spec.metadata, format: "mlx" };
  const entries = entriesOf(stored.values(), STORED_NAME[spec.dtype]);
  const sink = await createSafetensorsWriter(weights, entries, metadata);
  const path = join(dirname(weights), CONFIG);
  const text = `${JSON.stringify(mlxConfig(spec, scale), null, 2)}\n`;
  return new FactorWriter(spec, sink, stored, [{ path, write: () => writeFileAtomic(path, text) }]);
}

function mlxConfig(spec: AdapterSpec, scale: number): Record<string, unknown> {
  return {
    fine_tune_type: "lora",
    lora_parameters: { dropout: 0, keys: keysIn(spec.modules), rank: spec.rank, scale },
    model: spec.baseModel ?? null,
    // All layers: those without tensors keep a zero factor and change nothing.
    num_layers: -1,
  };
}

/** The adapted modules as MLX looks for them: by their path inside a layer, and others by their full path. */
function keysIn(modules: readonly ModuleSpec[]): string[] {
  const keys = modules.map(({ name }) => IN_LAYER.exec(name)?.[1] ?? modulePath(name));
  return [...new Set(keys)].sort();
}

/** Adapters of mlx-lm are of one language model, so that the component's name in front goes. */
function modulePath(name: string): string {
  return splitComponent(name).path;
}

function storedModule(module: ModuleSpec, rank: number, kept: number): StoredModule {
  const { inFeatures, outFeatures, form } = module;
  const key = modulePath(module.name);
  const factor = (module.scale ?? 1) / kept;
  if (form?.kind === "embedding") {
    return {
      rank,
      factor,
      a: { name: `${key}.lora_b`, shape: [rank, inFeatures] },
      b: { name: `${key}.lora_a`, shape: [outFeatures, rank] },
      constants: [],
    };
  }
  return {
    rank,
    factor,
    a: { name: `${key}.lora_a`, shape: [inFeatures, rank], arrange: (a) => transpose(a, rank, inFeatures) },
    b: {
      name: `${key}.lora_b`,
      shape: [rank, outFeatures],
      arrange: (b) => transpose(b, outFeatures, rank),
    },
    constants: [],
  };
}
