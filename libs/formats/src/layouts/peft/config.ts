import { FormatError } from "../../errors.ts";
import type { JsonObject, JsonValue } from "../../json/parse.ts";
import { ModulePattern } from "./module_pattern.ts";

/** What of an `adapter_config.json` decides the mathematics, checked. */
export interface PeftConfig {
  /** r of modules that no pattern matches. */
  readonly rank: number;
  readonly hasRank: boolean;
  readonly alpha: number;
  /** s = alpha / √r instead of alpha / r. */
  readonly useRslora: boolean;
  readonly rankPattern: ModuleValues;
  readonly alphaPattern: ModuleValues;
  readonly fanInFanOut: boolean;
  readonly baseModel: string | undefined;
  readonly taskType: string | undefined;
  /** A list of names, or one regular expression; undefined where the config has neither. */
  readonly targetModules: readonly string[] | string | undefined;
  readonly modulesToSave: readonly string[];
}

/** PEFT's own defaults of `LoraConfig`. */
const DEFAULT_RANK = 8;
const DEFAULT_ALPHA = 8;

/**
 * Checks the keys of a PEFT configuration that LoRA's scale and shapes depend on.
 *
 * @throws {FormatError} `peft_type_missing`, `peft_type_unsupported`, `config_invalid`, `alpha_zero`, `invalid_rank`,
 * `pattern_unsupported`
 */
export function readPeftConfig(config: JsonObject, path: string): PeftConfig {
  checkPeftType(config.get("peft_type"), path);
  const read = new ConfigReader(config, path);
  return {
    rank: checkRank(read.number("r") ?? DEFAULT_RANK, `${path} r`),
    hasRank: read.number("r") !== undefined,
    alpha: checkAlpha(read.number("lora_alpha") ?? DEFAULT_ALPHA, `${path} lora_alpha`),
    useRslora: read.boolean("use_rslora") ?? false,
    rankPattern: read.pattern("rank_pattern", checkRank),
    alphaPattern: read.pattern("alpha_pattern", checkAlpha),
    fanInFanOut: read.boolean("fan_in_fan_out") ?? false,
    baseModel: read.string("base_model_name_or_path") || undefined,
    taskType: read.string("task_type") || undefined,
    targetModules: read.namesOrPattern("target_modules"),
    modulesToSave: [read.namesOrPattern("modules_to_save") ?? []].flat(),
  };
}

/** A `rank_pattern` or `alpha_pattern`: the first pattern in the order of the file that matches a module decides. */
export class ModuleValues {
  readonly #entries: readonly { readonly pattern: ModulePattern; readonly value: number }[];

  constructor(entries: readonly { readonly pattern: ModulePattern; readonly value: number }[]) {
    this.#entries = entries;
  }

  get(module: string): number | undefined {
    return this.#entries.find(({ pattern }) => pattern.matches(module))?.value;
  }
}

function checkPeftType(value: JsonValue | undefined, path: string): void {
  if (value === "LORA") return;
  if (value === undefined) {
    throw new FormatError(
      "peft_type_missing",
      `${path} has no peft_type, "LORA" was expected`,
      'If this is a LoRA of PEFT, add "peft_type": "LORA".',
      `${path} peft_type`,
    );
  }
  throw new FormatError(
    "peft_type_unsupported",
    `the adapter is of peft_type ${JSON.stringify(value)}, "LORA" was expected`,
    "Convert it with PEFT (peft.convert_to_lora, where its type allows it), or leave it out.",
    `${path} peft_type`,
  );
}

function checkRank(value: number, where: string): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new FormatError(
    "invalid_rank",
    `the rank is ${value}, a whole number of at least 1 was expected`,
    "Correct the configuration, or leave the adapter out.",
    where,
  );
}

function checkAlpha(value: number, where: string): number {
  if (value !== 0) return value;
  throw new FormatError(
    "alpha_zero",
    "alpha is 0, which means no effect to some programs and alpha = r to others",
    "Set lora_alpha to what the adapter was trained with, or leave the adapter out.",
    where,
  );
}

class ConfigReader {
  readonly #config: JsonObject;
  readonly #path: string;

  constructor(config: JsonObject, path: string) {
    this.#config = config;
    this.#path = path;
  }

  number(key: string): number | undefined {
    return this.#optional(key, "a number", (value) => typeof value === "number" ? value : undefined);
  }

  boolean(key: string): boolean | undefined {
    return this.#optional(key, "true or false", (value) => typeof value === "boolean" ? value : undefined);
  }

  string(key: string): string | undefined {
    return this.#optional(key, "a string", (value) => typeof value === "string" ? value : undefined);
  }

  namesOrPattern(key: string): readonly string[] | string | undefined {
    return this.#optional(key, "a string or a list of strings", (value) => {
      if (typeof value === "string") return value;
      return Array.isArray(value) && value.every((item) => typeof item === "string")
        ? value as string[]
        : undefined;
    });
  }

  pattern(key: string, check: (value: number, where: string) => number): ModuleValues {
    const map = this.#optional(key, "an object", (value) => value instanceof Map ? value : undefined);
    return new ModuleValues([...map ?? []].map(([pattern, value]) => {
      const where = `${this.#path} ${key} ${pattern}`;
      if (typeof value !== "number") {
        throw this.#invalid(key, `numbers only, not ${JSON.stringify(value)}`, where);
      }
      return { pattern: new ModulePattern(pattern, where), value: check(value, where) };
    }));
  }

  #optional<T>(key: string, expected: string, convert: (value: JsonValue) => T | undefined): T | undefined {
    const value = this.#config.get(key);
    if (value === undefined || value === null) return undefined;
    const converted = convert(value);
    if (converted === undefined) throw this.#invalid(key, expected, `${this.#path} ${key}`);
    return converted;
  }

  #invalid(key: string, expected: string, where: string): FormatError {
    return new FormatError(
      "config_invalid",
      `${key} holds something else than ${expected}`,
      "Correct the configuration.",
      where,
    );
  }
}
