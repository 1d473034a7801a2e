import type { Adapter, LoraModule } from "../adapter.ts";
import { locate } from "../names/components.ts";
import { servingRank } from "./rank.ts";

/** Programs that load adapters. */
export const ENGINES = ["vllm", "llama_cpp", "comfyui", "diffusers", "mlx", "lorax"] as const;
export type Engine = typeof ENGINES[number];

/** What the programs are called. */
export const ENGINE_TITLES: Readonly<Record<Engine, string>> = {
  vllm: "vLLM",
  llama_cpp: "llama.cpp",
  comfyui: "ComfyUI",
  diffusers: "diffusers",
  mlx: "MLX",
  lorax: "LoRAX",
};

/** Whether a program loads an adapter as it is, and if not, why. */
export interface ServingVerdict {
  readonly ok: boolean;
  /** Why it does not. */
  readonly reasons: readonly string[];
  /** What to know where it does. */
  readonly notes: readonly string[];
}

export type ServingReport = Readonly<Record<Engine, ServingVerdict>>;

/** The largest rank that vLLM can be configured for. */
const VLLM_MAX_RANK = 512;

/** Says for each program whether it loads the adapter as it is, by what is public of their loaders. */
export function servingReport(adapter: Adapter): ServingReport {
  const facts = factsOf(adapter);
  const forLanguage = (check: (facts: Facts) => ServingVerdict) =>
    facts.isLanguageModel ? check(facts) : verdict(["it adapts an image or video model"]);
  const forImages = (check: (facts: Facts) => ServingVerdict) =>
    facts.isLanguageModel ? verdict(["it adapts a language model"]) : check(facts);
  return {
    vllm: forLanguage(vllm),
    llama_cpp: forLanguage(llamaCpp),
    comfyui: forImages(comfyUi),
    diffusers: forImages(diffusers),
    mlx: forLanguage(({ format }) => verdict([format !== "mlx" && convertTo(format, "mlx")])),
    lorax: forLanguage(lorax),
  };
}

interface Facts {
  readonly adapter: Adapter;
  readonly format: string;
  readonly modules: readonly LoraModule[];
  readonly hasMixedRanks: boolean;
  readonly hasMixedScales: boolean;
  readonly hasConvolutions: boolean;
  readonly isLanguageModel: boolean;
  readonly rank: number;
  readonly config: Readonly<Record<string, unknown>>;
}

function factsOf(adapter: Adapter): Facts {
  const modules = [...adapter.modules.values()];
  return {
    adapter,
    format: adapter.format,
    modules,
    hasMixedRanks: !isUniform(modules.map(({ rank }) => rank)),
    hasMixedScales: !isUniform(modules.map(({ scale }) => scale)),
    hasConvolutions: modules.some(({ form }) => form?.kind === "conv"),
    isLanguageModel: modules.every(isOfLanguageModel),
    rank: modules.reduce((most, { rank }) => Math.max(most, rank), 0),
    config: adapter.config ?? {},
  };
}

function isOfLanguageModel({ name }: LoraModule): boolean {
  // A name with a colon is a position in Stable Diffusion.
  return locate(name).component === undefined && !name.includes(":");
}

function isUniform(values: readonly number[]): boolean {
  return new Set(values).size <= 1;
}

/** A reason where there is one; `true` and `false` are none. */
type Reason = string | boolean;

function verdict(reasons: readonly Reason[], notes: readonly Reason[] = []): ServingVerdict {
  const texts = (list: readonly Reason[]) => list.filter((reason) => typeof reason === "string");
  const found = texts(reasons);
  return { ok: found.length === 0, reasons: found, notes: found.length === 0 ? texts(notes) : [] };
}

function convertTo(format: string, target: string): string {
  return `it is in the layout ${format}; deno task convert IN OUT --to ${target} makes one of ${target}`;
}

/** What rules out every program that reads a PEFT folder and one rank and alpha from its configuration. */
function peftReasons(facts: Facts): Reason[] {
  const { format, config, hasMixedRanks, hasMixedScales, hasConvolutions } = facts;
  return [
    format !== "peft" && convertTo(format, "peft"),
    format === "peft" && hasMixedRanks && "its modules have different ranks, but one rank is assumed for all",
    format === "peft" && !hasMixedRanks && hasMixedScales &&
    "its modules have different alphas, but one alpha is assumed for all",
    isSet(config["modules_to_save"]) && "it carries whole modules (modules_to_save)",
    isSet(config["bias"]) && config["bias"] !== "none" && "it carries biases",
    hasConvolutions && "it adapts convolutions",
  ];
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false &&
    !(Array.isArray(value) && value.length === 0);
}

function vllm(facts: Facts): ServingVerdict {
  return verdict([
    ...peftReasons(facts),
    facts.format === "peft" && facts.adapter.files.length > 2 && "its weights are sharded, one file is read",
    facts.rank > VLLM_MAX_RANK && `its rank exceeds ${VLLM_MAX_RANK}`,
  ], [`start the server with --max-lora-rank ${servingRank(facts.rank)} or more`]);
}

function lorax(facts: Facts): ServingVerdict {
  return verdict(peftReasons(facts), [
    facts.rank > 128 && "its kernels are made for ranks up to 128; larger ones run slower",
  ]);
}

function llamaCpp(facts: Facts): ServingVerdict {
  const { format, config, hasMixedScales, hasMixedRanks, hasConvolutions } = facts;
  if (format === "gguf") return verdict([]);
  const hasMixedAlphas = !isUniform(facts.modules.map(({ alpha }) => alpha));
  return verdict([
    format !== "peft" && convertTo(format, "gguf"),
    format === "peft" && hasMixedAlphas && (hasMixedScales || hasMixedRanks) &&
    "its modules have different alphas, but one alpha is assumed for all",
    config["use_rslora"] === true &&
    "it is rank-stabilised (use_rslora), which the converter does not fold into alpha",
    isSet(config["modules_to_save"]) && "it carries whole modules (modules_to_save)",
    hasConvolutions && "it adapts convolutions",
  ], ["llama.cpp's convert_lora_to_gguf.py, or deno task convert IN OUT --to gguf, makes the file it loads"]);
}

function comfyUi(facts: Facts): ServingVerdict {
  const { format, modules } = facts;
  const hasUnet = modules.some(({ name }) => locate(name).component === "unet");
  // The names of U-Nets that ComfyUI makes for diffusers files have the attention processor in them.
  const isNewForm = format === "diffusers" && hasUnet &&
    modules.some(({ a }) => !a.name.includes(".processor.") && /\.to_(q|k|v|out)\b/.test(a.name));
  return verdict([
    !["kohya", "diffusers", "original"].includes(format) && convertTo(format, "kohya"),
    isNewForm && "of U-Nets it knows diffusers' oldest names only; deno task convert IN OUT --to kohya helps",
  ]);
}

function diffusers(facts: Facts): ServingVerdict {
  const { format, hasMixedRanks, adapter, modules } = facts;
  const hasMetadata = adapter.metadata["lora_adapter_metadata"] !== undefined;
  const isFlattened = modules.some((module) => module.isFlattened);
  return verdict([
    !["kohya", "diffusers", "original"].includes(format) && convertTo(format, "diffusers"),
    isFlattened && "its names are of no model that is known here",
  ], [
    format === "diffusers" && hasMixedRanks && !hasMetadata &&
    "its modules have different ranks and the metadata do not say so: older versions scale them wrongly",
    format !== "diffusers" &&
    "it is converted while it is loaded, where the pipeline knows the model's names",
  ]);
}
