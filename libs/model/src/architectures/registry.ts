import type { Architecture } from "../architecture.ts";
import { ModelError } from "../errors.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

/** Every family that {@linkcode openModel} can run. */
export const ARCHITECTURES: readonly Architecture[] = [llama, mistral, qwen2, qwen3];

/**
 * The family of a parsed `config.json`, by `architectures`, or by `model_type` where that is missing.
 *
 * @throws {ModelError} `unsupported_architecture`
 */
export function architectureOf(json: unknown, where: string): Architecture {
  const config = typeof json === "object" && json !== null ? json as Record<string, unknown> : {};
  const classNames = Array.isArray(config.architectures) ? config.architectures.map(String) : [];
  const found = ARCHITECTURES.find((architecture) =>
    classNames.length > 0
      ? classNames.includes(architecture.className)
      : config.model_type === architecture.modelType
  );
  if (found) return found;
  throw new ModelError(
    "unsupported_architecture",
    `the model is a ${
      classNames.join(", ") || config.model_type || "model of unnamed type"
    }; supported are ` +
      ARCHITECTURES.map((architecture) => architecture.className).join(", "),
    "use a base model of a supported family; the data-free methods need none",
    where,
  );
}
