import type { Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import type { JsonObject, JsonValue } from "../../json/parse.ts";
import { dropAdvice, type DropList } from "../drop.ts";

/** A configuration key that changes what the adapter computes in a way that ΔW = s·B·A does not hold. */
interface RefusedKey {
  readonly key: string;
  /** Whether this value of the key changes nothing. */
  readonly isNeutral: (value: JsonValue) => boolean;
  readonly effect: string;
  /** The effect stands beside ΔW, so that the rest is meaningful without it. */
  readonly canDrop?: true;
  /** A way out other than leaving the adapter out. */
  readonly fix?: string;
}

const isOff = (value: JsonValue) => value === null || value === false;
const isEmpty = (value: JsonValue) =>
  isOff(value) || (Array.isArray(value) && value.length === 0) || (value instanceof Map && value.size === 0);
const NEUTRAL_STARTS = new Set<JsonValue>([true, false, null, "gaussian", "eva", "orthogonal", "mica"]);

const REFUSED_KEYS: readonly RefusedKey[] = [
  { key: "use_dora", isNeutral: isOff, effect: "DoRA rescales the merged weight and is not additive" },
  { key: "use_qalora", isNeutral: isOff, effect: "QALoRA pools the module's input" },
  { key: "use_bdlora", isNeutral: isEmpty, effect: "BD-LoRA makes a factor block-diagonal" },
  { key: "kasa_config", isNeutral: isEmpty, effect: "KaSA truncates the base weight" },
  { key: "arrow_config", isNeutral: isEmpty, effect: "Arrow routes between adapters for each token" },
  { key: "velora_config", isNeutral: isEmpty, effect: "VeLoRA changes the layer" },
  { key: "monteclora_config", isNeutral: isEmpty, effect: "MonteCLoRA changes the layer" },
  {
    key: "alora_invocation_tokens",
    isNeutral: isEmpty,
    effect: "aLoRA acts only after its invocation tokens",
  },
  { key: "layer_replication", isNeutral: isEmpty, effect: "the base model's layers are repeated" },
  {
    key: "init_lora_weights",
    isNeutral: (value) => NEUTRAL_STARTS.has(value),
    effect: "this start changes the base weights too, and the adapter was not converted when it was saved",
    fix: "Save it again with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…).",
  },
  { key: "lora_bias", isNeutral: isOff, effect: "the B factors carry biases", canDrop: true },
  {
    key: "bias",
    isNeutral: (value) => value === "none" || value === null,
    effect: "the base model's biases were trained too",
    canDrop: true,
  },
  {
    key: "modules_to_save",
    isNeutral: isEmpty,
    effect: "whole modules were trained and saved",
    canDrop: true,
  },
  {
    key: "trainable_token_indices",
    isNeutral: isEmpty,
    effect: "embeddings of single tokens were trained",
    canDrop: true,
  },
  { key: "target_parameters", isNeutral: isEmpty, effect: "expert parameters are adapted" },
  { key: "ensure_weight_tying", isNeutral: isOff, effect: "tied modules share an adapter", canDrop: true },
];

/** Keys that were handled, or that do not touch ΔW. */
const KNOWN_KEYS = new Set([
  ...REFUSED_KEYS.map(({ key }) => key),
  ...["r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"],
  ...["target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"],
  ...["qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config"],
  ...["peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version", "auto_mapping"],
  ...["inference_mode", "lora_dropout", "megatron_config", "megatron_core"],
]);

/**
 * Refuses every key whose effect is not handled, by name; warns of what is dropped and of unknown keys.
 *
 * @throws {FormatError} `unsupported_config`
 */
export function checkConfigKeys(config: JsonObject, path: string, drop: DropList): Warning[] {
  const warnings: Warning[] = [];
  for (const refused of REFUSED_KEYS) {
    const value = config.get(refused.key);
    if (value === undefined || refused.isNeutral(value)) continue;
    if (!refused.canDrop || !drop.includes(refused.key)) throw unsupported(refused, value, path);
    const message = `${refused.key} is dropped: ${refused.effect}`;
    warnings.push({ code: "dropped", message, where: `${path} ${refused.key}` });
  }
  for (const [key, value] of config) {
    if (KNOWN_KEYS.has(key) || isEmpty(value)) continue;
    const message = `the key ${key} is unknown and was ignored`;
    warnings.push({ code: "unknown_config_key", message, where: `${path} ${key}` });
  }
  return warnings;
}

function unsupported({ key, effect, canDrop, fix }: RefusedKey, value: JsonValue, path: string): FormatError {
  const wayOut = canDrop
    ? `Leave the adapter out, or accept the loss with ${dropAdvice(key)}.`
    : "Leave the adapter out.";
  return new FormatError(
    "unsupported_config",
    `${key} is ${describe(value)}, which is not handled: ${effect}`,
    fix ?? wayOut,
    `${path} ${key}`,
  );
}

function describe(value: JsonValue): string {
  return value instanceof Map ? "set" : JSON.stringify(value);
}
