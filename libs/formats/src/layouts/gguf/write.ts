import type { AdapterSpec, AdapterWriter, ModuleSpec } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { createGgufWriter, type WrittenValue } from "../../gguf/write.ts";
import { STORED_NAME } from "../../numbers/narrow.ts";
import { refuseForms } from "../factors/form.ts";
import {
  checkSpec,
  entriesOf,
  FactorWriter,
  type Floats,
  type StoredModule,
  transpose,
} from "../factors/write.ts";
import { type Architecture, architectureOf } from "./architectures.ts";
import { checkHeads, type Heads, headsOf, headsOfBase, interleavedRow } from "./heads.ts";
import { GIVE_BASE } from "./give_base.ts";
import { ggufName } from "./names.ts";
import { dropAdvice } from "../drop.ts";

/**
 * Creates an adapter of llama.cpp. It has one alpha for all tensors, so the scales are multiplied into B and alpha is 0,
 * which means that there is nothing left to multiply with.
 *
 * @throws {FormatError} `architecture_unknown`, `architecture_unsupported`, `heads_unknown`, `module_unsupported`,
 * `form_unsupported`, `shape_mismatch`, …
 */
export async function createGgufAdapterWriter(weights: string, spec: AdapterSpec): Promise<AdapterWriter> {
  checkSpec(spec, weights);
  refuseForms(spec.modules, ["conv"], "GGUF", weights);
  const architecture = architectureOf(modelTypeOf(spec, weights), weights);
  const named = spec.modules.map((module) => ({ module, name: nameOf(module, architecture, weights) }));
  const needsHeads = architecture.permutesHeads && named.some(({ name }) => /\.attn_[qk]$/.test(name));
  const heads = needsHeads ? headsOfBase(spec.base, weights) : undefined;
  const stored = new Map(
    named.map(({ module, name }) => [
      module.name,
      storedModule(module, name, module.rank ?? spec.rank, heads, weights),
    ]),
  );
  const entries = entriesOf(stored.values(), STORED_NAME[spec.dtype]);
  const sink = await createGgufWriter(weights, entries, headerValues(spec, architecture, heads));
  return new FactorWriter(spec, sink, stored);
}

function modelTypeOf({ base }: AdapterSpec, where: string): string {
  if (base?.modelType !== undefined) return base.modelType;
  throw new FormatError(
    "architecture_unknown",
    "llama.cpp loads an adapter only for the architecture it names, and the base model's is not known",
    GIVE_BASE,
    where,
  );
}

function nameOf({ name }: ModuleSpec, architecture: Architecture, where: string): string {
  const found = ggufName(name, architecture);
  if (found !== undefined) return found;
  throw new FormatError(
    "module_unsupported",
    `${name} has no name in llama.cpp's architecture ${architecture.name}`,
    `Leave the module out with ${dropAdvice(name)}, or choose another layout.`,
    `${where} ${name}`,
  );
}

function storedModule(
  module: ModuleSpec,
  name: string,
  moduleRank: number,
  heads: Heads | undefined,
  where: string,
): StoredModule {
  const { inFeatures, outFeatures, form } = module;
  const rank = Math.max(moduleRank, 1);
  const factor = module.scale ?? 1;
  const key = `${name}.weight`;
  if (form?.kind === "embedding") {
    // Δ = lora_a · lora_bᵀ of an embedding, with lora_a [vocabulary, r] and lora_b [width, r].
    return {
      rank,
      factor,
      a: {
        name: `${key}.lora_b`,
        shape: [inFeatures, rank],
        arrange: (a) => transpose(a, rank, inFeatures),
      },
      b: { name: `${key}.lora_a`, shape: [outFeatures, rank] },
      constants: [],
    };
  }
  const count = heads && headsOf(name.split(".").at(-1)!, heads);
  if (count !== undefined) checkHeads(outFeatures, count, `${where} ${module.name}`);
  return {
    rank,
    factor,
    a: { name: `${key}.lora_a`, shape: [rank, inFeatures] },
    b: {
      name: `${key}.lora_b`,
      shape: [outFeatures, rank],
      arrange: (b) => count === undefined ? b : interleaveRows(b, outFeatures, rank, count),
    },
    constants: [],
  };
}

function interleaveRows(b: Floats, rows: number, rank: number, heads: number): Floats {
  const ordered = b.slice();
  for (let row = 0; row < rows; row++) {
    const from = interleavedRow(row, rows, heads) * rank;
    ordered.set(b.subarray(from, from + rank), row * rank);
  }
  return ordered;
}

function headerValues(
  spec: AdapterSpec,
  { name }: Architecture,
  heads: Heads | undefined,
): Map<string, WrittenValue> {
  const values = new Map<string, WrittenValue>([
    ["general.architecture", { type: "string", value: name }],
    ["general.type", { type: "string", value: "adapter" }],
    ["adapter.type", { type: "string", value: "lora" }],
    ["adapter.lora.alpha", { type: "float32", value: 0 }],
  ]);
  if (spec.baseModel !== undefined) {
    values.set("general.base_model.count", { type: "uint32", value: 1 });
    values.set("general.base_model.0.name", { type: "string", value: spec.baseModel });
  }
  if (heads) {
    // llama.cpp takes them from the model; here they say how to bring the rows back into their order.
    values.set(`${name}.attention.head_count`, { type: "uint32", value: heads.queries });
    values.set(`${name}.attention.head_count_kv`, { type: "uint32", value: heads.keys });
  }
  for (const [key, value] of Object.entries(spec.metadata ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!values.has(key)) values.set(key, { type: "string", value });
  }
  return values;
}
