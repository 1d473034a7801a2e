import type { OutputFormat } from "@lora-loom/formats";

/** A value that a method's parameter can take. */
export type ParameterValue = number | string | boolean;

/** Element types an output file can have. */
export const OUTPUT_DTYPES = ["float32", "float16", "bfloat16"] as const;
export type OutputDType = (typeof OUTPUT_DTYPES)[number];

/** Where to compute. Nothing silently falls back from what was asked: only `auto` chooses. */
export const DEVICE_CHOICES = ["auto", "gpu", "software", "cpu"] as const;
export type DeviceChoice = (typeof DEVICE_CHOICES)[number];

/** Where the base model's weights are while nothing computes with them. */
export const WEIGHT_CHOICES = ["auto", "resident", "streamed"] as const;

/** What a merge that runs the base model may take of memory. */
export interface MemoryChoice {
  /** `resident` on the device, `streamed` from the model's files whenever a stage needs them; `auto`: by their size. */
  readonly weights: (typeof WEIGHT_CHOICES)[number];
  /** Most memory on the device, in GiB. */
  readonly deviceGib?: number;
  /** Most memory of the process, in GiB. */
  readonly hostGib?: number;
}

/** One adapter to merge. */
export interface RecipeAdapter {
  /** Absolute path of a PEFT folder or a single adapter file. */
  readonly path: string;
  /** Unique among the recipe's adapters; from the path's last part unless given. */
  readonly name: string;
  /** Factor of its delta. Default 1. */
  readonly weight: number;
  /** Absolute path of a JSON Lines file with calibration prompts, where the method needs them. */
  readonly calibration?: string;
  /** Absolute path of a `.npz` or `.safetensors` file with what the modules read, instead of `calibration`. */
  readonly capture?: string;
  /** What may be left out of it: kinds of tensors, modules or tensors that cannot be merged. */
  readonly drop?: readonly string[];
  /** Expand LoHa and LoKr into plain LoRA. */
  readonly expand?: boolean;
}

/** A recipe with every default filled in and every path absolute: what a merge runs on, and what `loom.json` records. */
export interface Recipe {
  readonly method: string;
  /** Absolute path of a Hugging Face model folder. */
  readonly baseModel?: string;
  readonly adapters: readonly RecipeAdapter[];
  /** Only what was given or has a fixed default: methods derive the rest from the adapters. */
  readonly parameters: Readonly<Record<string, ParameterValue>>;
  /** Present when the merge is to be refined: steps, learning rate and so on, with fixed defaults filled in. */
  readonly refine?: Readonly<Record<string, ParameterValue>>;
  /** Globs over module names; empty means every module. */
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  readonly output: { readonly path: string; readonly format: OutputFormat; readonly dtype: OutputDType };
  readonly memory: MemoryChoice;
  readonly seed: number;
  readonly device: DeviceChoice;
}

/** The keys of `memory` as a recipe has them. */
export function memoryInRecipe(
  { weights, deviceGib, hostGib }: MemoryChoice,
): Record<string, ParameterValue> {
  return {
    weights,
    ...(deviceGib === undefined ? {} : { device_gib: deviceGib }),
    ...(hostGib === undefined ? {} : { host_gib: hostGib }),
  };
}

/** Whether a recipe wants its merge refined. */
export function asksForRefinement({ refine }: Pick<Recipe, "refine">): boolean {
  return refine !== undefined && Number(refine.steps) > 0;
}
