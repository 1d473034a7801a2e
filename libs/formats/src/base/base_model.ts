import { basename, join, resolve } from "node:path";
import { FormatError } from "../errors.ts";
import type { JsonObject, JsonValue } from "../json/parse.ts";
import { readJsonFile } from "../json/read_json_file.ts";
import { listNames, openWeights } from "../safetensors/sharded.ts";

/** What reading or writing some layouts needs to know of the base model. */
export interface BaseModel {
  readonly name: string;
  /** `model_type` of its `config.json`, such as `llama`. */
  readonly modelType?: string | undefined;
  /** Heads of the queries, and of the keys and values. */
  readonly headCount?: number | undefined;
  readonly keyValueHeadCount?: number | undefined;
  /** Paths of all its modules that have a weight; empty where the folder has no weights. */
  readonly moduleNames: readonly string[];
}

/** Components of a pipeline that may lie in subfolders of their own. */
export const COMPONENT_FOLDERS = [
  "unet",
  "transformer",
  "transformer_2",
  "text_encoder",
  "text_encoder_2",
  "text_encoder_3",
];
/** What files of weights are called, but for the number of a shard. */
export const WEIGHT_STEMS = ["model", "diffusion_pytorch_model"];
/** What the name of a module's weight ends in. */
export const WEIGHT = ".weight";

/**
 * Reads what a model's folder says about it: its `config.json` and the names of its weights, no values. Of a diffusers
 * pipeline the components are read from their subfolders.
 *
 * @throws {FormatError} `base_invalid` where the folder has neither, and the errors of the files
 */
export async function readBaseModel(directory: string): Promise<BaseModel> {
  const names = await listNames(directory);
  const config = names.includes("config.json")
    ? await readJsonFile(join(directory, "config.json"))
    : undefined;
  const moduleNames = await modulesOf(directory, names);
  for (const component of COMPONENT_FOLDERS.filter((folder) => names.includes(folder))) {
    const inside = join(directory, component);
    for (const module of await modulesOf(inside, await listNames(inside))) {
      moduleNames.push(`${component}.${module}`);
    }
  }
  if (!config && moduleNames.length === 0) throw noModel(directory);
  const text = textConfig(config);
  const headCount = natural(text?.get("num_attention_heads"));
  return {
    name: basename(resolve(directory)),
    modelType: string(text?.get("model_type")) ?? string(config?.get("model_type")),
    headCount,
    keyValueHeadCount: natural(text?.get("num_key_value_heads")) ?? headCount,
    moduleNames,
  };
}

/** Models with several parts, vision and language, keep the language model's numbers in an object of its own. */
function textConfig(config: JsonObject | undefined): JsonObject | undefined {
  const inner = config?.get("text_config");
  return inner instanceof Map ? inner : config;
}

async function modulesOf(directory: string, names: readonly string[]): Promise<string[]> {
  for (const stem of WEIGHT_STEMS) {
    const weights = await openWeights(directory, names, stem);
    if (!weights) continue;
    weights.close();
    return [...weights.tensors.keys()]
      .filter((name) => name.endsWith(WEIGHT))
      .map((name) => name.slice(0, -WEIGHT.length));
  }
  return [];
}

function noModel(directory: string): FormatError {
  return new FormatError(
    "base_invalid",
    `${directory} holds neither a config.json nor weights`,
    "Give the folder of the base model, as downloaded from its hub.",
    directory,
  );
}

function natural(value: JsonValue | undefined): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : undefined;
}

function string(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}
