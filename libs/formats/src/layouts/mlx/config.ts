import type { Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import type { JsonObject, JsonValue } from "../../json/parse.ts";
import { checkAlpha } from "../factors/alpha.ts";

/** What of an MLX configuration decides ΔW. */
export interface MlxConfig {
  /** The factor of a·b itself, not an alpha. */
  readonly scale: number;
  readonly rank: number | undefined;
  readonly baseModel: string | undefined;
  readonly warnings: readonly Warning[];
}

/** What mlx-lm's own code takes for an absent scale. */
const DEFAULT_SCALE = 20;

/**
 * Checks an MLX `adapter_config.json`.
 *
 * @throws {FormatError} `unsupported_config`, `config_invalid`, `alpha_zero`
 */
export function readMlxConfig(config: JsonObject, path: string): MlxConfig {
  const kind = config.get("fine_tune_type") ?? "lora";
  if (kind !== "lora") throw unsupported(kind, path);
  const parameters = config.get("lora_parameters");
  if (!(parameters instanceof Map)) throw invalid("lora_parameters", "an object", path);
  const scale = optionalNumber(parameters, "scale", path);
  return {
    scale: checkAlpha(scale ?? DEFAULT_SCALE, `${path} lora_parameters.scale`),
    rank: optionalNumber(parameters, "rank", path),
    baseModel: typeof config.get("model") === "string" ? config.get("model") as string : undefined,
    warnings: scale === undefined
      ? [{
        code: "scale_assumed",
        message: `lora_parameters has no scale; mlx-lm's default of ${DEFAULT_SCALE} is taken`,
        where: path,
      }]
      : [],
  };
}

function optionalNumber(parameters: JsonObject, key: string, path: string): number | undefined {
  const value = parameters.get(key);
  if (value === undefined || value === null) return undefined;
  if (typeof value === "number") return value;
  throw invalid(`lora_parameters.${key}`, "a number", path);
}

function unsupported(kind: JsonValue, path: string): FormatError {
  return new FormatError(
    "unsupported_config",
    `fine_tune_type is ${JSON.stringify(kind)}, "lora" was expected: other types are no ΔW = s·B·A`,
    "Leave the adapter out, or train it as a plain LoRA (--fine-tune-type lora).",
    `${path} fine_tune_type`,
  );
}

function invalid(key: string, expected: string, path: string): FormatError {
  return new FormatError(
    "config_invalid",
    `${key} is not ${expected}`,
    "Correct the configuration.",
    `${path} ${key}`,
  );
}
