import type { Device, Tensor } from "@lora-loom/tensor";
import type { Adapter, Warning } from "@lora-loom/formats";
import type { Residency } from "@lora-loom/model";
import type { MemoryChoice, ParameterValue, RecipeAdapter } from "../recipe/recipe.ts";
import type { Plan } from "../plan/plan.ts";
import type { DecisionPool } from "../decisions/decision_pool.ts";
import type { DeltaFigures, MeasuredQuality } from "../report/figures.ts";
import type { StepJournal } from "../resume/step_journal.ts";
import type { MemoryNeeds } from "../memory/needs.ts";
import type { ParameterSpec } from "./parameters.ts";

/** Values of a method's parameters, as the recipe gave them or as they default. */
export type Parameters = Readonly<Record<string, ParameterValue>>;

/** What every method says about itself: validation, help, documentation and the server's schema are made from this. */
export interface MethodDescription {
  /** As in the recipe. */
  readonly name: string;
  /** A few words for a list. */
  readonly title: string;
  /** One or two sentences: what it does and when to take it. */
  readonly summary: string;
  /** The result in symbols; ΔW_t = s_t B_t A_t and w_t is the weight in the recipe. */
  readonly formula: string;
  /** Paper or program it comes from. */
  readonly source: string;
  readonly parameters: readonly ParameterSpec[];
  /** What the recipe must name besides the adapters. */
  readonly needs: { readonly baseModel: boolean; readonly calibration: boolean };
  /** Present where recorded inputs of the modules can stand for base model and calibration, with the parameters that then hold. */
  readonly captures?: { readonly parameters: readonly ParameterSpec[] };
  /**
   * The rank of the merged adapter at one module.
   *
   * @param ranks of the adapters that have the module
   */
  outputRank(ranks: readonly number[], parameters: Parameters): number;
  /**
   * Refuses what the parameters' own ranges cannot: combinations, and what depends on the adapters.
   *
   * @throws {MergeError}
   */
  check?(plan: PlannedRanks, parameters: Parameters): void;
}

/** What a method may look at before the work starts. */
export interface PlannedRanks {
  readonly modules: readonly {
    readonly name: string;
    /** Of the adapters that have the module. */
    readonly ranks: readonly number[];
    readonly inFeatures: number;
    readonly outFeatures: number;
  }[];
  /** How many adapters the recipe has; fewer may have a module. */
  readonly adapters: number;
}

/** One adapter's factors at one module, on the device: ΔW = scale · b · a. */
export interface WeightedFactors {
  /** `[r, in]`, f32 */
  readonly a: Tensor;
  /** `[out, r]`, f32 */
  readonly b: Tensor;
  readonly scale: number;
  readonly weight: number;
  /** Position in the recipe. */
  readonly adapter: number;
}

/** What a module-wise method knows besides the factors. */
export interface ModuleContext {
  readonly module: string;
  readonly device: Device;
  readonly parameters: Parameters;
  /** What {@linkcode MethodDescription.outputRank} said of this module. */
  readonly rank: number;
  readonly seed: number;
  /** Threads for decisions that take long, where there are any. */
  readonly decisions?: DecisionPool | undefined;
  /** Names of all modules of the merge, in its order. */
  readonly modules: readonly string[];
  /** How many adapters the recipe has; fewer may have this module. */
  readonly adapters: number;
}

/** Numbers and lists of numbers that a method wants in the report, by name. */
export type MethodFigures = Readonly<Record<string, number | readonly number[]>>;

/** The merged factors of one module: ΔW' = b · a. The engine disposes them. */
export interface MergedFactors {
  /** `[rank, in]`; fewer rows than asked are padded with zeros */
  readonly a: Tensor;
  /** `[out, rank]` */
  readonly b: Tensor;
  readonly figures?: MethodFigures;
  /** Inner products with the inputs, where the method has them anyway; else the engine measures them. */
  readonly deltas?: DeltaFigures;
}

/** A method that merges each module by itself, from its factors alone. */
export interface ModuleMethod extends MethodDescription {
  readonly kind: "module";
  merge(sources: readonly WeightedFactors[], context: ModuleContext): Promise<MergedFactors>;
}

/** What a whole-model method gets. */
export interface ModelJob {
  readonly device: Device;
  readonly plan: Plan;
  /** In the recipe's order, open; each with its entry in the recipe (weight, calibration). */
  readonly adapters: readonly { readonly adapter: Adapter; readonly recipe: RecipeAdapter }[];
  /** Absolute path of the base model's folder; present when the method needs it. */
  readonly baseModel: string | undefined;
  readonly parameters: Parameters;
  readonly memory: MemoryChoice;
  readonly seed: number;
  readonly signal: AbortSignal | undefined;
  /**
   * Finished steps of this merge: what an interrupted run left, and where this one leaves its own. Ask once.
   *
   * @param deciding what decides about the bytes of the result beside the recipe, its inputs and the device, by name
   */
  journal(deciding: Readonly<Record<string, unknown>>): Promise<StepJournal>;
  /** Tells the user what is going on, such as `{ stage: "capture", done: 3, total: 12 }`. */
  progress(step: { readonly stage: string; readonly done: number; readonly total: number }): void;
  /** Tells the user what the merge is going to need. */
  announce(needs: MemoryNeeds, weights: Residency): void;
  /** Takes a finished module and disposes its tensors. Order does not matter; each module of the plan exactly once. */
  write(module: string, merged: MergedFactors): Promise<void>;
}

/** What a whole-model method tells beside its modules. */
export interface MethodOutcome {
  readonly figures?: MethodFigures;
  /** How well the merge does what the adapters do, as far as the method can know. */
  readonly quality?: MeasuredQuality;
  readonly warnings?: readonly Warning[];
  /** What it was to need, where that was known before. */
  readonly predicted?: MemoryNeeds;
}

/** A method that looks at the whole model at once, such as one that runs its forward pass. */
export interface ModelMethod extends MethodDescription {
  readonly kind: "model";
  merge(job: ModelJob): Promise<MethodOutcome>;
}

export type Method = ModuleMethod | ModelMethod;
