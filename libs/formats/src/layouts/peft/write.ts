import { dirname, join } from "node:path";
import type { AdapterSpec, AdapterWriter, ModuleSpec } from "../../adapter.ts";
import { writeFileAtomic } from "../../io/write_file_atomic.ts";
import { STORED_NAME } from "../../numbers/narrow.ts";
import { createSafetensorsWriter } from "../../safetensors/write.ts";
import { factorShapes } from "../factors/form.ts";
import { commonScale } from "../factors/scale.ts";
import { checkSpec, entriesOf, FactorWriter, type StoredModule, transpose } from "../factors/write.ts";
import { PREFIX } from "./keys.ts";
import { targetsOf } from "./write_targets.ts";

/** What a PEFT folder is to hold. */
export type PeftSpec = AdapterSpec;

export const WEIGHTS = "adapter_model.safetensors";
const CONFIG = "adapter_config.json";

/**
 * Creates a PEFT adapter in a folder that exists: one rank for all modules, one `lora_alpha`, which is r unless the
 * modules share another scale, no rslora, no patterns, no biases, no saved modules. PEFT from 0.10 on, vLLM and
 * llama.cpp load it. Stage the folder with `stageDirectory` to have it complete or not at all.
 *
 * @throws {FormatError} `invalid_rank`, `no_modules`, `duplicate_key`, `target_exists`, `disk_full`, …
 */
export function createPeftWriter(directory: string, spec: PeftSpec): Promise<AdapterWriter> {
  return createWriter(join(directory, WEIGHTS), spec);
}

/** As {@linkcode createPeftWriter}, with the weight file's own path. */
export async function createWriter(weights: string, spec: PeftSpec): Promise<AdapterWriter> {
  checkSpec(spec, weights);
  const kept = commonScale(spec.modules) ?? 1;
  const stored = new Map(
    spec.modules.map((module) => [module.name, storedModule(module, spec.rank, kept, weights)]),
  );
  const entries = entriesOf(stored.values(), STORED_NAME[spec.dtype]);
  const sink = await createSafetensorsWriter(weights, entries, { ...spec.metadata, format: "pt" });
  const path = join(dirname(weights), CONFIG);
  const text = `${JSON.stringify(peftConfig(spec), null, 2)}\n`;
  return new FactorWriter(spec, sink, stored, [{ path, write: () => writeFileAtomic(path, text) }]);
}

/** The configuration that {@linkcode createPeftWriter} writes: nothing that an older PEFT would not know. */
export function peftConfig(spec: PeftSpec): Record<string, unknown> {
  return {
    alpha_pattern: {},
    auto_mapping: null,
    base_model_name_or_path: spec.baseModel ?? null,
    bias: "none",
    fan_in_fan_out: spec.fanInFanOut ?? false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: (commonScale(spec.modules) ?? 1) * spec.rank,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: "LORA",
    r: spec.rank,
    rank_pattern: {},
    revision: null,
    target_modules: [...spec.targetModules ?? targetsOf(spec.modules.map(({ name }) => name))].sort(),
    task_type: spec.taskType ?? null,
    use_dora: false,
    use_rslora: false,
  };
}

/** @param kept the scale that the configuration holds */
function storedModule(module: ModuleSpec, rank: number, kept: number, where: string): StoredModule {
  const { name, inFeatures, outFeatures, form } = module;
  const factor = (module.scale ?? 1) / kept;
  const key = PREFIX + name;
  if (form?.kind === "embedding") {
    // PEFT has Δ = (B·A)ᵀ of an embedding: its A is our Bᵀ, and its B our Aᵀ.
    return {
      rank,
      factor,
      a: {
        name: `${key}.lora_embedding_B`,
        shape: [inFeatures, rank],
        arrange: (a) => transpose(a, rank, inFeatures),
      },
      b: {
        name: `${key}.lora_embedding_A`,
        shape: [rank, outFeatures],
        arrange: (b) => transpose(b, outFeatures, rank),
      },
      constants: [],
    };
  }
  const shapes = factorShapes(module, rank, where);
  return {
    rank,
    factor,
    a: { name: `${key}.lora_A.weight`, shape: shapes.a },
    b: { name: `${key}.lora_B.weight`, shape: shapes.b },
    constants: [],
  };
}
