import type { LoraModule, Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { canWiden } from "../../numbers/widen.ts";
import type { SafetensorsFile, StoredTensor } from "../../safetensors/read.ts";
import type { DropList } from "../drop.ts";
import type { PeftConfig } from "./config.ts";
import { type ExtraKind, type PeftKey, PREFIX, readKey, withoutPrefix } from "./keys.ts";

/** The two factors of a module, as far as they were found. */
interface Pair {
  a?: StoredTensor;
  b?: StoredTensor;
}

/**
 * Pairs the tensors of a PEFT file and checks every shape against the configuration.
 *
 * @throws {FormatError} `foreign_key`, `duplicate_module`, `several_adapters`, `incomplete_pair`, `unsupported_tensor`,
 * `unannounced_tensor`, `conv_module`, `shape_mismatch`, `rank_mismatch`, `invalid_rank`, `unsupported_dtype`,
 * `no_modules`
 */
export function readModules(
  weights: SafetensorsFile,
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

function pairTensors(weights: SafetensorsFile, config: PeftConfig, drop: DropList) {
  const pairs = new Map<string, Pair>();
  const warnings: Warning[] = [];
  const adapters = new Set<string | undefined>();
  let isPrefixRepeated = false;
  for (const [name, tensor] of weights.tensors) {
    checkLength(name, weights.path);
    const stripped = withoutPrefix(name);
    if (!stripped) throw foreignKey(name, weights.path);
    isPrefixRepeated ||= stripped.repeats > 1;
    const key = readKey(stripped.path);
    if (key.kind === "factor") {
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

/** Patterns are matched against names, in time proportional to their length. */
const MAX_NAME_LENGTH = 1000;

function checkLength(name: string, path: string): void {
  if (name.length <= MAX_NAME_LENGTH) return;
  throw new FormatError(
    "name_too_long",
    `a tensor's name has ${name.length} characters, at most ${MAX_NAME_LENGTH} were expected`,
    "The file is damaged or hostile: fetch it again from its source.",
    `${path} ${name.slice(0, 80)}…`,
  );
}

function addFactor(
  pairs: Map<string, Pair>,
  { module, factor }: Extract<PeftKey, { kind: "factor" }>,
  tensor: StoredTensor,
  path: string,
): void {
  const pair = pairs.get(module) ?? {};
  const side = factor === "A" ? "a" : "b";
  const other = pair[side];
  if (other) {
    throw new FormatError(
      "duplicate_module",
      `${other.name} and ${tensor.name} are the same factor of ${module}`,
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
  embedding: { what: "a LoRA of an embedding", key: "lora_embedding" },
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
    : `Leave the adapter out, or accept the loss with drop: [${JSON.stringify(module)}].`;
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
  const { a, b } = pair;
  if (!a || !b) throw incompletePair(a, where);
  refuseConvolution(a, b, where);
  const { rank, inFeatures, outFeatures } = checkShapes(a, b, where);
  checkDType(a, path);
  checkDType(b, path);
  checkRankAgainst(config, name, rank, where);
  const alpha = config.alphaPattern.get(name) ?? config.alpha;
  const scale = alpha / (config.useRslora ? Math.sqrt(rank) : rank);
  return { name, rank, inFeatures, outFeatures, scale, alpha, a, b };
}

function incompletePair(a: StoredTensor | undefined, where: string): FormatError {
  const [found, missing] = a ? ["A", "B"] : ["B", "A"];
  return new FormatError(
    "incomplete_pair",
    `the module has lora_${found} but no lora_${missing}`,
    "The adapter is incomplete: fetch or save it again.",
    where,
  );
}

function refuseConvolution(a: StoredTensor, b: StoredTensor, where: string): void {
  if (a.shape.length <= 2 && b.shape.length <= 2) return;
  throw new FormatError(
    "conv_module",
    `the module is a convolution (A [${a.shape.join(", ")}], B [${
      b.shape.join(", ")
    }]); linear modules were expected`,
    "Leave the adapter out: convolutions are not handled in this layout.",
    where,
  );
}

function checkShapes(a: StoredTensor, b: StoredTensor, where: string) {
  const [rank, inFeatures] = a.shape;
  const [outFeatures, rankOfB] = b.shape;
  const isPair = a.shape.length === 2 && b.shape.length === 2 && rank === rankOfB;
  if (!isPair || rank === undefined || inFeatures === undefined || outFeatures === undefined) {
    throw new FormatError(
      "shape_mismatch",
      `A has the shape [${a.shape.join(", ")}] and B [${b.shape.join(", ")}]; expected [r, in] and [out, r]`,
      "The adapter is damaged: fetch or save it again.",
      where,
    );
  }
  if (rank === 0 || inFeatures === 0 || outFeatures === 0) {
    throw new FormatError(
      "invalid_rank",
      `A has the shape [${a.shape.join(", ")}] and B [${b.shape.join(", ")}]: the module is empty`,
      "Leave the adapter out, or save it again without this module.",
      where,
    );
  }
  return { rank, inFeatures, outFeatures };
}

function checkDType(tensor: StoredTensor, path: string): void {
  if (/^(F|BF)\d/.test(tensor.dtype) && canWiden(tensor.dtype)) return;
  throw new FormatError(
    "unsupported_dtype",
    `the factor is stored as ${tensor.dtype}; F32, F16, BF16, F64 or an 8-bit float was expected`,
    "Save the adapter again as float32, float16 or bfloat16.",
    `${path} ${tensor.name}`,
  );
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
