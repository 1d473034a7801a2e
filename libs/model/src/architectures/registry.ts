import type { Architecture } from "../architecture.ts";
import { decoderFamily } from "../decoder_family.ts";
import { ModelError } from "../errors.ts";
import type { ModelFamily } from "../model_family.ts";
import { t5 } from "../t5/family.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3 } from "./gemma3.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

/** Decoders, each described by a file beside this one. */
const DECODERS: readonly Architecture[] = [llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3, gpt2];

/** Every family that {@linkcode openModel} can run. */
export const FAMILIES: readonly ModelFamily[] = [...DECODERS.map(decoderFamily), t5];

/**
 * The family of a parsed `config.json`, by `architectures`, or by `model_type` where that is missing.
 *
 * @throws {ModelError} `unsupported_architecture`, for mixtures of experts, too
 */
export function familyOf(json: unknown, where: string): ModelFamily {
  return foundIn(FAMILIES, json, where);
}

/** As {@linkcode familyOf}, among decoders. */
export function architectureOf(json: unknown, where: string): Architecture {
  return foundIn(DECODERS, json, where);
}

function foundIn<Named extends Pick<ModelFamily, "modelType" | "className">>(
  all: readonly Named[],
  json: unknown,
  where: string,
): Named {
  const config = typeof json === "object" && json !== null ? json as Record<string, unknown> : {};
  const classNames = Array.isArray(config.architectures) ? config.architectures.map(String) : [];
  const name = classNames.join(", ") || config.model_type || "model of unnamed type";
  const experts = expertsOf(config);
  if (experts > 1) throw refusal(`the model is a ${name}, a mixture of ${experts} experts`, where);
  const found = all.find(({ className, modelType }) =>
    classNames.length > 0 ? classNames.includes(className) : config.model_type === modelType
  );
  if (found) return found;
  throw refusal(`the model is a ${name}`, where);
}

/** What families of mixtures call the number of experts of a layer: Mixtral, Qwen, DeepSeek and others. */
const EXPERT_KEYS = ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"];

function expertsOf(config: Readonly<Record<string, unknown>>): number {
  return Math.max(0, ...EXPERT_KEYS.map((key) => Number(config[key] ?? 0) || 0));
}

function refusal(found: string, where: string): ModelError {
  return new ModelError(
    "unsupported_architecture",
    `${found}; supported are ${FAMILIES.map(({ className }) => className).join(", ")}`,
    "record what its modules read where it runs, and name the recordings in the recipe by `capture`; or take a data-free " +
      "method, such as lego, which needs no base model",
    where,
  );
}
