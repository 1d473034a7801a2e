import type { Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { JsonError, type JsonObject, type JsonValue, parseJson } from "../../json/parse.ts";
import { COMPONENTS, splitComponent } from "../../names/components.ts";
import { DropList } from "../drop.ts";
import { type PeftConfig, readPeftConfig } from "../peft/config.ts";
import { checkConfigKeys } from "../peft/refused_keys.ts";

/** The metadata key under which newer files keep each component's PEFT configuration. */
export const ADAPTER_METADATA = "lora_adapter_metadata";

/** The PEFT configurations of an adapter's components. */
export interface ComponentConfigs {
  readonly warnings: readonly Warning[];
  readonly baseModel: string | undefined;
  /** The scale of a module; undefined where no configuration speaks of its component. */
  scaleOf(module: string, rank: number): number | undefined;
}

/**
 * Reads `lora_adapter_metadata`: JSON of PEFT's configuration keys, each with its component in front (`unet.r`).
 *
 * @throws {FormatError} `config_invalid`, `rank_mismatch`, `unsupported_config` and what a PEFT configuration can be
 * wrong in
 */
export function readAdapterMetadata(
  text: string | undefined,
  where: string,
  drop: readonly string[] = [],
): ComponentConfigs {
  const configs = new Map<string, PeftConfig>();
  const warnings: Warning[] = [];
  for (const [component, object] of splitByComponent(text, where)) {
    const at = `${where} ${component}`;
    object.set("peft_type", object.get("peft_type") ?? "LORA");
    configs.set(component, readPeftConfig(object, at));
    warnings.push(...checkConfigKeys(object, at, new DropList(drop)));
  }
  return {
    warnings,
    baseModel: [...configs.values()].find(({ baseModel }) => baseModel !== undefined)?.baseModel,
    scaleOf(module, rank) {
      const { component, path } = splitComponent(module);
      const config = component && configs.get(component);
      return config ? scaleIn(config, path, rank, `${where} ${module}`) : undefined;
    },
  };
}

function scaleIn(config: PeftConfig, path: string, rank: number, where: string): number {
  const expected = config.rankPattern.get(path) ?? config.rank;
  if (config.hasRank && rank !== expected) {
    throw new FormatError(
      "rank_mismatch",
      `the tensors have rank ${rank}, the metadata says ${expected}`,
      "Restore the metadata that belongs to these weights: the scale depends on it.",
      where,
    );
  }
  const alpha = config.alphaPattern.get(path) ?? config.alpha;
  return alpha / (config.useRslora ? Math.sqrt(rank) : rank);
}

function splitByComponent(text: string | undefined, where: string): Map<string, JsonObject> {
  const configs = new Map<string, JsonObject>();
  for (const [key, value] of parseObject(text, where)) {
    const component = COMPONENTS.find((name) => key.startsWith(`${name}.`));
    if (!component) continue;
    const config = configs.get(component) ?? new Map<string, JsonValue>();
    configs.set(component, config.set(key.slice(component.length + 1), value));
  }
  return configs;
}

function parseObject(text: string | undefined, where: string): JsonObject {
  if (text === undefined) return new Map();
  try {
    const value = parseJson(text);
    if (value instanceof Map) return value;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
  }
  throw new FormatError(
    "config_invalid",
    `${ADAPTER_METADATA} is no JSON object`,
    "Save the adapter again with diffusers' save_lora_weights.",
    where,
  );
}
