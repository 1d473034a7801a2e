import type { Adapter, LoraModule, Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import type { GgufValue } from "../../gguf/types.ts";
import { reorderedRows, transposedTensor } from "../../tensors/derived_tensor.ts";
import type { StoredTensor } from "../../tensors/tensor_file.ts";
import { dropAdvice, DropList } from "../drop.ts";
import { fileAdapter } from "../factors/adapter.ts";
import { checkPair, incompletePair } from "../factors/pair.ts";
import { noModules } from "../factors/read.ts";
import type { OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";
import { type Architecture, architectureOf } from "./architectures.ts";
import { checkHeads, type Heads, headsOf, headsOfBase, splitHalfRow } from "./heads.ts";
import { moduleName } from "./names.ts";

/** What the values of an adapter's header say. */
interface GgufFacts {
  readonly architecture: Architecture;
  /** One for all modules; 0 means that the scale is 1. */
  readonly alpha: number;
  readonly values: ReadonlyMap<string, GgufValue>;
}

const ENDING = /^(.+)\.weight\.lora_([ab])$/;
type Pairs = Map<string, { a?: StoredTensor; b?: StoredTensor }>;

/** Reads an adapter of llama.cpp: its names become Hugging Face's, and the rows of Q and K take their order there. */
// Async, so that a refusal rejects like every other failure of opening.
// deno-lint-ignore require-await
export async function readGgufAdapter(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { weights } = source;
  const facts = readFacts(source.values!, weights.path);
  const warnings: Warning[] = [];
  const pairs = collect(source, new DropList(options.drop), warnings);
  const modules = new Map<string, LoraModule>();
  for (const [key, pair] of pairs) {
    const module = toModule(key, pair, facts, options, weights.path);
    modules.set(module.name, module);
  }
  if (modules.size === 0) throw noModules(weights.path);
  const sorted = new Map([...modules].sort(([a], [b]) => (a < b ? -1 : 1)));
  return fileAdapter(source, "gguf", sorted, warnings, {
    baseModel: weights.metadata["general.base_model.0.name"],
  });
}

function readFacts(values: ReadonlyMap<string, GgufValue>, path: string): GgufFacts {
  for (const [key, expected] of [["general.type", "adapter"], ["adapter.type", "lora"]] as const) {
    const found = values.get(key);
    if (found === expected) continue;
    throw new FormatError(
      "not_an_adapter",
      `${key} is ${JSON.stringify(found ?? null)}, ${JSON.stringify(expected)} was expected`,
      "Check that the file is an adapter: convert_lora_to_gguf.py writes them.",
      `${path} ${key}`,
    );
  }
  const tokens = values.get("adapter.alora.invocation_tokens");
  if (Array.isArray(tokens) && tokens.length > 0) {
    throw new FormatError(
      "unsupported_config",
      "the adapter acts only after its invocation tokens (aLoRA), which is not handled",
      "Leave the adapter out.",
      `${path} adapter.alora.invocation_tokens`,
    );
  }
  const name = values.get("general.architecture");
  const alpha = values.get("adapter.lora.alpha");
  if (typeof name !== "string" || typeof alpha !== "number" || !Number.isFinite(alpha)) {
    throw new FormatError(
      "config_invalid",
      "general.architecture is no text or adapter.lora.alpha no finite number",
      "Convert the adapter again with convert_lora_to_gguf.py.",
      path,
    );
  }
  return { architecture: architectureOf(name, `${path} general.architecture`), alpha, values };
}

function collect({ weights }: AdapterSource, drop: DropList, warnings: Warning[]): Pairs {
  const pairs: Pairs = new Map();
  for (const [name, tensor] of weights.tensors) {
    const match = ENDING.exec(name);
    if (drop.includes(name, match?.[1] ?? name)) {
      warnings.push({ code: "dropped", message: `${name} is dropped`, where: `${weights.path} ${name}` });
    } else if (!match) throw foreign(name, weights.path);
    else {
      const [, key, side] = match as unknown as [string, string, "a" | "b"];
      pairs.set(key, { ...pairs.get(key), [side]: tensor });
    }
  }
  return pairs;
}

function foreign(name: string, path: string): FormatError {
  const isNorm = name.endsWith("_norm.weight");
  return new FormatError(
    isNorm ? "unsupported_tensor" : "foreign_key",
    isNorm
      ? `${name} is a norm's weight, which stands beside the LoRA and cannot be merged`
      : `the tensor ${JSON.stringify(name)} ends neither in .weight.lora_a nor in .weight.lora_b`,
    `Leave the adapter out, or the tensor with ${dropAdvice(name)}.`,
    `${path} ${name}`,
  );
}

function toModule(
  key: string,
  { a, b }: { a?: StoredTensor; b?: StoredTensor },
  facts: GgufFacts,
  options: OpenOptions,
  path: string,
): LoraModule {
  const where = `${path} ${key}`;
  const name = moduleName(key, facts.architecture);
  if (name === undefined) throw unknownModule(key, facts.architecture, where);
  if (!a) throw incompletePair("lora_b", "lora_a", where);
  if (!b) throw incompletePair("lora_a", "lora_b", where);
  const isEmbedding = key === "token_embd";
  // llama.cpp keeps an embedding's A as [vocabulary, r] and B as [width, r]: Δ = A·Bᵀ.
  const factors = isEmbedding
    ? { a: transposedTensor(b), b: a }
    : { a, b: inHuggingFaceOrder(key, b, facts, options, where) };
  const shape = checkPair(factors.a, factors.b, where);
  if (shape.form.kind !== "linear") throw tooManyDimensions(key, where);
  const scale = facts.alpha === 0 ? 1 : facts.alpha / shape.rank;
  const module = { name, ...shape, scale, alpha: scale * shape.rank, ...factors };
  return isEmbedding ? { ...module, form: { kind: "embedding" } } : module;
}

function inHuggingFaceOrder(
  key: string,
  b: StoredTensor,
  { architecture, values }: GgufFacts,
  options: OpenOptions,
  where: string,
): StoredTensor {
  const part = key.split(".").at(-1)!;
  if (!architecture.permutesHeads || (part !== "attn_q" && part !== "attn_k") || b.shape.length !== 2) {
    return b;
  }
  const heads = headsIn(values, architecture) ?? headsOfBase(options.base, where);
  const count = headsOf(part, heads)!;
  const rows = b.shape[0]!;
  checkHeads(rows, count, where);
  return reorderedRows(b, (row) => splitHalfRow(row, rows, count));
}

/** The heads that the header names; llama.cpp's converter leaves them out, ours writes them. */
function headsIn(values: ReadonlyMap<string, GgufValue>, { name }: Architecture): Heads | undefined {
  const queries = values.get(`${name}.attention.head_count`);
  const keys = values.get(`${name}.attention.head_count_kv`);
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
  return isCount(queries) && isCount(keys) ? { queries, keys } : undefined;
}

function unknownModule(key: string, { name }: Architecture, where: string): FormatError {
  return new FormatError(
    "foreign_key",
    `${key} is no module of the architecture ${name} that is known here`,
    `Leave the module out with ${dropAdvice(key)}, or the adapter.`,
    where,
  );
}

function tooManyDimensions(key: string, where: string): FormatError {
  return new FormatError(
    "unsupported_tensor",
    "the factors have more than two dimensions, as of experts, which is not handled",
    `Leave the module out with ${dropAdvice(key)}, or the adapter.`,
    where,
  );
}
