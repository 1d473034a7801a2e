import type { LoraModule, Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { transposedTensor } from "../../tensors/derived_tensor.ts";
import type { StoredTensor, TensorFile } from "../../tensors/tensor_file.ts";
import type { DropList } from "../drop.ts";
import { checkNameLength } from "../factors/name_length.ts";
import { checkPair, incompletePair, shapeMismatch } from "../factors/pair.ts";
import type { PeftConfig } from "./config.ts";
import { type ExtraKind, type PeftKey, PREFIX, readKey, withoutPrefix } from "./keys.ts";
import { dropAdvice } from "../drop.ts";

/** The two factors of a module, as far as they were found. */
interface Pair {
  isEmbedding: boolean;
  a?: StoredTensor;
  b?: StoredTensor;
}

/**
 * Pairs the tensors of a PEFT file and checks every shape against the configuration.
 *
 * @throws {FormatError} `foreign_key`, `duplicate_module`, `several_adapters`, `incomplete_pair`, `unsupported_tensor`,
 * `unannounced_tensor`, `grouped_conv`, `shape_mismatch`, `rank_mismatch`, `invalid_rank`, `unsupported_dtype`,
 * `no_modules`
 */
export function readModules(
  weights: TensorFile,
  config: PeftConfig,
  drop: DropList,
): { modules: Map<string, LoraModule>; warnings: Warning[] } {
  const { pairs, warnings } = pairTensors(weights, config, drop);
  const names = [...pairs.keys()].sort();
  if (names.length === 0) {
    throw new FormatError(
      "no_modules",
      `${weights.path} holds no LoRA factors`,
      "Check that the file is an adapter.",
      weights.path,
    );
  }
  const modules = new Map(
    names.map((name) => [name, toModule(name, pairs.get(name)!, config, weights.path)]),
  );
  return { modules, warnings };
}

function pairTensors(weights: TensorFile, config: PeftConfig, drop: DropList) {
  const pairs = new Map<string, Pair>();
  const warnings: Warning[] = [];
  const adapters = new Set<string | undefined>();
  let isPrefixRepeated = false;
  for (const [name, tensor] of weights.tensors) {
    checkNameLength(name, weights.path);
    const stripped = withoutPrefix(name);
    if (!stripped) throw foreignKey(name, weights.path);
    isPrefixRepeated ||= stripped.repeats > 1;
    const key = readKey(stripped.path);
    if (key.kind === "factor" && isDropped(key, drop)) {
      const message = `${stripped.path} is dropped: its module was named`;
      warnings.push({ code: "dropped", message, where: `${weights.path} ${name}` });
    } else if (key.kind === "factor") {
      adapters.add(key.adapter);
      addFactor(pairs, key, tensor, weights.path);
    } else {
      warnings.push(handleExtra(key.module, key.extra, tensor, config, drop, weights.path));
    }
  }
  refuseSeveralAdapters(adapters, weights.path);
  if (isPrefixRepeated) {
    const message = `keys begin with ${PREFIX} more than once; all were removed`;
    warnings.push({ code: "prefix_repeated", message, where: weights.path });
  }
  return { pairs, warnings };
}

function isDropped({ module, isEmbedding }: Extract<PeftKey, { kind: "factor" }>, drop: DropList): boolean {
  return drop.includes(module) || (isEmbedding && drop.includes("lora_embedding"));
}

function addFactor(
  pairs: Map<string, Pair>,
  { module, factor, isEmbedding }: Extract<PeftKey, { kind: "factor" }>,
  tensor: StoredTensor,
  path: string,
): void {
  const pair = pairs.get(module) ?? { isEmbedding };
  const side = factor === "A" ? "a" : "b";
  const other = pair[side] ?? (pair.isEmbedding === isEmbedding ? undefined : pair.a ?? pair.b);
  if (other) {
    throw new FormatError(
      "duplicate_module",
      `${other.name} and ${tensor.name} cannot both be factors of ${module}`,
      "Store each adapter in a file of its own.",
      `${path} ${module}`,
    );
  }
  pair[side] = tensor;
  pairs.set(module, pair);
}

function refuseSeveralAdapters(adapters: ReadonlySet<string | undefined>, path: string): void {
  if (adapters.size <= 1) return;
  const names = [...adapters].map((name) => name ?? "(unnamed)").join(", ");
  throw new FormatError(
    "several_adapters",
    `the file holds several adapters: ${names}`,
    "Save each adapter in a folder of its own.",
    path,
  );
}

const EXTRAS: Readonly<Record<ExtraKind, { readonly what: string; readonly key?: string }>> = {
  dora: { what: "the magnitude vector of DoRA, which is not additive" },
  lora_bias: { what: "the bias of a B factor", key: "lora_bias" },
  bias: { what: "a trained bias", key: "bias" },
  token_delta: { what: "a change of single tokens' embeddings", key: "trainable_token_indices" },
  adapter_parameter: { what: "a part of a LoRA variant that is not known" },
  full: { what: "a full tensor", key: "modules_to_save" },
};

/** Refuses a tensor that is no factor, unless the caller agreed to lose it. */
function handleExtra(
  module: string,
  extra: ExtraKind,
  tensor: StoredTensor,
  config: PeftConfig,
  drop: DropList,
  path: string,
): Warning {
  const { what, key } = EXTRAS[extra];
  const where = `${path} ${tensor.name}`;
  const canonical = withoutPrefix(tensor.name)!.path;
  if (key !== undefined && drop.includes(key, module, canonical, tensor.name)) {
    return { code: "dropped", message: `${canonical} is dropped: ${what}`, where };
  }
  const isAnnounced = extra !== "full" ||
    config.modulesToSave.some((name) => `.${module}.`.includes(`.${name}.`));
  const fix = key === undefined
    ? "Convert the adapter with PEFT into a plain LoRA first, or leave it out."
    : `Leave the adapter out, or accept the loss with ${dropAdvice(canonical)}.`;
  throw new FormatError(
    isAnnounced ? "unsupported_tensor" : "unannounced_tensor",
    `${canonical} is ${what}${
      isAnnounced ? "" : " that the configuration does not announce"
    }, which cannot be merged`,
    fix,
    where,
  );
}

function foreignKey(name: string, path: string): FormatError {
  return new FormatError(
    "foreign_key",
    `the key ${JSON.stringify(name)} does not begin with ${PREFIX} as in PEFT`,
    "Save the adapter again with PEFT's save_pretrained.",
    `${path} ${name}`,
  );
}

function toModule(name: string, pair: Pair, config: PeftConfig, path: string): LoraModule {
  const where = `${path} ${name}`;
  const { a, b } = orient(pair, where);
  const shape = checkPair(a, b, where);
  const { rank } = shape;
  checkRankAgainst(config, name, rank, where);
  const alpha = config.alphaPattern.get(name) ?? config.alpha;
  const scale = alpha / (config.useRslora ? Math.sqrt(rank) : rank);
  return pair.isEmbedding
    ? { name, ...shape, scale, alpha, a, b, form: { kind: "embedding" } }
    : { name, ...shape, scale, alpha, a, b };
}

/** The factors such that ΔW = B·A. Of an embedding PEFT has Δ = (B·A)ᵀ, which is Aᵀ·Bᵀ. */
function orient({ isEmbedding, a, b }: Pair, where: string): { a: StoredTensor; b: StoredTensor } {
  const prefix = isEmbedding ? "lora_embedding_" : "lora_";
  if (!a) throw incompletePair(`${prefix}B`, `${prefix}A`, where);
  if (!b) throw incompletePair(`${prefix}A`, `${prefix}B`, where);
  if (!isEmbedding) return { a, b };
  if (a.shape.length !== 2 || b.shape.length !== 2) throw shapeMismatch(a, b, where);
  return { a: transposedTensor(b), b: transposedTensor(a) };
}

function checkRankAgainst(config: PeftConfig, module: string, rank: number, where: string): void {
  const expected = config.rankPattern.get(module) ?? config.rank;
  if (rank === expected) return;
  const source = config.hasRank
    ? "the configuration says"
    : "the configuration has no r, and PEFT's default is";
  throw new FormatError(
    "rank_mismatch",
    `the tensors have rank ${rank}, ${source} ${expected}`,
    "Restore the adapter_config.json that belongs to these weights: the scale depends on it.",
    where,
  );
}
