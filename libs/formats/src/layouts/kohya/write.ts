import type { AdapterSpec, AdapterWriter, ModuleKeys, ModuleSpec } from "../../adapter.ts";
import { locate } from "../../names/components.ts";
import { PathDecoder } from "../../names/underscores.ts";
import { STORED_NAME } from "../../numbers/narrow.ts";
import { createSafetensorsWriter } from "../../safetensors/write.ts";
import { factorShapes, refuseForms } from "../factors/form.ts";
import { alphaTensor } from "../factors/scale.ts";
import { readTensorName } from "../factors/suffixes.ts";
import { checkSpec, entriesOf, FactorWriter, type StoredModule } from "../factors/write.ts";
import { MODULE_NAMES } from "./name_table.ts";
import { prefixFor } from "./prefixes.ts";

/**
 * Creates a kohya file: every module with its own rank and an alpha tensor, so that no scale is folded and nothing padded.
 *
 * @throws {FormatError} `form_unsupported`, `invalid_rank`, `no_modules`, `duplicate_key`, `target_exists`, …
 */
export async function createKohyaWriter(weights: string, spec: AdapterSpec): Promise<AdapterWriter> {
  checkSpec(spec, weights);
  refuseForms(spec.modules, ["embedding"], "kohya", weights);
  const hasSeveralEncoders = usesSeveralEncoders(spec.modules);
  const stored = new Map(spec.modules.map((module) => {
    const keys = module.keys ?? keysOf(module, hasSeveralEncoders);
    return [module.name, storedModule(module, keys, module.rank ?? spec.rank, weights)];
  }));
  const metadata = { ...spec.metadata, ...networkMetadata(spec, stored), ...nameTable(spec.modules) };
  const sink = await createSafetensorsWriter(
    weights,
    entriesOf(stored.values(), STORED_NAME[spec.dtype]),
    metadata,
  );
  return new FactorWriter(spec, sink, stored);
}

/** Layouts that store one alpha for each module share this form. */
export function storedModule(
  module: ModuleSpec,
  keys: ModuleKeys,
  moduleRank: number,
  where: string,
): StoredModule {
  const rank = Math.max(moduleRank, 1);
  const shapes = factorShapes(module, rank, where);
  const scale = module.scale ?? 1;
  // Without a tensor alpha = r, so that a file that had none keeps having none.
  const constants = keys.alpha === undefined && scale === 1
    ? []
    : [alphaTensor(keys.alpha ?? `${readTensorName(keys.a)!.module}.alpha`, scale * rank, rank, scale)];
  return {
    rank,
    factor: 1,
    a: { name: keys.a, shape: shapes.a },
    b: { name: keys.b, shape: shapes.b },
    constants,
  };
}

function keysOf({ name }: ModuleSpec, hasSeveralEncoders: boolean): ModuleKeys {
  const { component, path } = locate(name);
  const front = `${prefixFor(component, path, { hasSeveralEncoders })}_${path.replaceAll(".", "_")}`;
  return { a: `${front}.lora_down.weight`, b: `${front}.lora_up.weight`, alpha: `${front}.alpha` };
}

/** Width of SDXL's two text encoders together, which its cross-attention reads. */
const SDXL_CONTEXT = 2048;

/** Whether the base model has more than one text encoder, as far as its adapted modules tell. */
function usesSeveralEncoders(modules: readonly ModuleSpec[]): boolean {
  return modules.some(({ name, inFeatures }) => {
    const { component, path } = locate(name);
    return component === "text_encoder_2" || component === "text_encoder_3" || component === "transformer" ||
      /\.transformer_blocks\.[1-9]\d*\./.test(path) ||
      (/\.attn2\.to_[kv]$/.test(path) && inFeatures === SDXL_CONTEXT);
  });
}

function networkMetadata(
  { metadata, modules }: AdapterSpec,
  stored: ReadonlyMap<string, StoredModule>,
): Record<string, string> {
  const ranks = new Set([...stored.values()].map(({ rank }) => rank));
  const alphas = new Set(modules.map(({ name, scale }) => (scale ?? 1) * stored.get(name)!.rank));
  const common = (values: ReadonlySet<number>) => values.size === 1 ? String([...values][0]) : "Dynamic";
  return {
    ss_network_module: metadata?.["ss_network_module"] ?? "networks.lora",
    ss_network_dim: common(ranks),
    ss_network_alpha: common(alphas),
  };
}

/** Paths that reading the keys back would not give. */
function nameTable(modules: readonly ModuleSpec[]): Record<string, string> {
  const paths = modules.map(({ name }) => locate(name).path);
  const decoder = new PathDecoder(paths.map((path) => path.replaceAll(".", "_")));
  const lost = paths.filter((path) =>
    path.includes(".") && decoder.decode(path.replaceAll(".", "_")) !== path
  );
  return lost.length === 0 ? {} : { [MODULE_NAMES]: JSON.stringify(lost) };
}
