import type { Adapter, AdapterSpec, AdapterWriter, ModuleKeys, ModuleSpec } from "../../adapter.ts";
import { inferComponent, locate, splitComponent } from "../../names/components.ts";
import { STORED_NAME } from "../../numbers/narrow.ts";
import { createSafetensorsWriter } from "../../safetensors/write.ts";
import { fileAdapter } from "../factors/adapter.ts";
import { refuseForms } from "../factors/form.ts";
import { readFactorFile } from "../factors/read.ts";
import { readTensorName, type TensorRole } from "../factors/suffixes.ts";
import { checkSpec, entriesOf, FactorWriter } from "../factors/write.ts";
import { storedModule } from "../kohya/write.ts";
import type { Layout, OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";

const PREFIX = /^(model\.)?diffusion_model\./;
/** Endings that models' own weights have too. */
const AMBIGUOUS: readonly TensorRole[] = ["full", "bias", "alpha", "scalar"];

/**
 * The names that a model's own code uses, with dots, as ComfyUI and trainers of newer models write them: behind
 * `diffusion_model.`, or with nothing in front.
 */
export const originalLayout: Layout = {
  id: "original",
  title: "original model names",
  container: "safetensors",
  weightFiles: [],
  ownsKey: (key) => PREFIX.test(key) && hasAdapterEnding(key),
  mayOwnKey: hasAdapterEnding,
  read: readOriginal,
  writing: { weightFile: "lora.safetensors", isSingleFile: true, create: createOriginalWriter },
};

function hasAdapterEnding(key: string): boolean {
  const name = readTensorName(key);
  return name !== undefined && !AMBIGUOUS.includes(name.role);
}

async function readOriginal(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { modules, warnings } = await readFactorFile(
    source.weights,
    "original model names",
    (front) => ({ name: readPath(front) }),
    options,
  );
  return fileAdapter(source, "original", modules, warnings);
}

function readPath(front: string): string {
  const path = front.replace(PREFIX, "");
  const component = inferComponent(path) ?? (path === front ? undefined : "transformer");
  return component ? `${component}.${path}` : path;
}

/**
 * Creates a file with the model's own names behind `diffusion_model.`, every module with its own rank and, where its
 * scale is not 1, an alpha.
 */
async function createOriginalWriter(weights: string, spec: AdapterSpec): Promise<AdapterWriter> {
  checkSpec(spec, weights);
  refuseForms(spec.modules, ["embedding"], "the layout of original names", weights);
  const stored = new Map(spec.modules.map((module) => {
    const keys = module.keys ?? keysOf(module);
    return [module.name, storedModule(module, keys, module.rank ?? spec.rank, weights)];
  }));
  const entries = entriesOf(stored.values(), STORED_NAME[spec.dtype]);
  return new FactorWriter(spec, await createSafetensorsWriter(weights, entries, spec.metadata), stored);
}

function keysOf({ name }: ModuleSpec): ModuleKeys {
  const { component, path } = locate(name);
  const isDenoiser = component === "unet" || component === "transformer" || component === "prior";
  const front = isDenoiser ? `diffusion_model.${path}` : splitComponent(name).path;
  return { a: `${front}.lora_A.weight`, b: `${front}.lora_B.weight` };
}
