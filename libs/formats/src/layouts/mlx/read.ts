import type { Adapter, LoraModule, Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { transposedTensor } from "../../tensors/derived_tensor.ts";
import type { StoredTensor } from "../../tensors/tensor_file.ts";
import { dropAdvice, DropList } from "../drop.ts";
import { fileAdapter } from "../factors/adapter.ts";
import { checkNameLength } from "../factors/name_length.ts";
import { checkPair, incompletePair, shapeMismatch, shapeText } from "../factors/pair.ts";
import { noModules } from "../factors/read.ts";
import type { OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";
import { type MlxConfig, readMlxConfig } from "./config.ts";
import { isEmbeddingName } from "./embeddings.ts";

/** Factors by module, as the file has them. */
type Pairs = Map<string, { lora_a?: StoredTensor; lora_b?: StoredTensor }>;

/** Reads an MLX folder: lora_a is [in, r] and lora_b [r, out], so that ΔW = scale · (a·b)ᵀ. */
// Async, so that a refusal rejects like every other failure of opening.
// deno-lint-ignore require-await
export async function readMlx(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { weights, configPath } = source;
  if (!source.config) throw configMissing(source);
  const config = readMlxConfig(source.config, configPath);
  const warnings: Warning[] = [...config.warnings];
  const pairs = collect(source, new DropList(options.drop), warnings);
  const modules = new Map<string, LoraModule>();
  for (const name of [...pairs.keys()].sort()) {
    modules.set(name, toModule(name, pairs.get(name)!, config, weights.path));
  }
  if (modules.size === 0) throw noModules(weights.path);
  return fileAdapter(source, "mlx", modules, warnings, config);
}

function collect({ weights }: AdapterSource, drop: DropList, warnings: Warning[]): Pairs {
  const pairs: Pairs = new Map();
  for (const [key, tensor] of weights.tensors) {
    checkNameLength(key, weights.path);
    const dot = key.lastIndexOf(".");
    const [module, side] = [key.slice(0, Math.max(dot, 0)), key.slice(dot + 1)];
    if (drop.includes(key, module) || (side === "m" && drop.includes("dora"))) {
      warnings.push({ code: "dropped", message: `${key} is dropped`, where: `${weights.path} ${key}` });
    } else if (side === "lora_a" || side === "lora_b") {
      pairs.set(module, { ...pairs.get(module), [side]: tensor });
    } else throw foreign(key, side, weights.path);
  }
  return pairs;
}

function toModule(
  name: string,
  { lora_a: first, lora_b: second }: { lora_a?: StoredTensor; lora_b?: StoredTensor },
  config: MlxConfig,
  path: string,
): LoraModule {
  const where = `${path} ${name}`;
  if (!first) throw incompletePair("lora_b", "lora_a", where);
  if (!second) throw incompletePair("lora_a", "lora_b", where);
  if (first.shape.length === 3 && second.shape.length === 3) throw experts(name, first, where);
  if (first.shape.length !== 2 || second.shape.length !== 2) throw shapeMismatch(first, second, where);
  const isEmbedding = isEmbeddingName(name);
  // A linear module's ΔW is (a·b)ᵀ = bᵀ·aᵀ; an embedding's is a·b itself, so that lora_a takes the place of B.
  const [a, b] = isEmbedding ? [second, first] : [transposedTensor(first), transposedTensor(second)];
  const shape = checkPair(a, b, where);
  checkRank(config.rank, shape.rank, where);
  const { scale } = config;
  const module = { name, ...shape, scale, alpha: scale * shape.rank, a, b };
  return isEmbedding ? { ...module, form: { kind: "embedding" } } : module;
}

function checkRank(announced: number | undefined, rank: number, where: string): void {
  if (announced === undefined || announced === rank) return;
  throw new FormatError(
    "rank_mismatch",
    `the tensors have rank ${rank}, lora_parameters says ${announced}`,
    "Restore the adapter_config.json that belongs to these weights.",
    where,
  );
}

function configMissing({ path, configPath }: AdapterSource): FormatError {
  return new FormatError(
    "config_missing",
    `${path} has the keys of MLX but no adapter_config.json: without it the scale is unknown`,
    "Put the adapter's adapter_config.json beside adapters.safetensors.",
    configPath,
  );
}

function experts(name: string, tensor: StoredTensor, where: string): FormatError {
  return new FormatError(
    "unsupported_tensor",
    `${name} is adapted expert by expert (${shapeText(tensor)}), which is not handled`,
    `Leave the module out with ${dropAdvice(name)}, or the adapter.`,
    where,
  );
}

function foreign(key: string, side: string, path: string): FormatError {
  const isDora = side === "m";
  return new FormatError(
    isDora ? "unsupported_variant" : "foreign_key",
    isDora
      ? `${key} is the magnitude of DoRA, which rescales the merged weight and is not additive`
      : `the key ${JSON.stringify(key)} is none of MLX`,
    isDora
      ? `Leave the adapter out, or accept the loss with ${dropAdvice("dora")}.`
      : `Check where the file comes from, or leave the tensor out with ${dropAdvice(key)}.`,
    `${path} ${key}`,
  );
}
