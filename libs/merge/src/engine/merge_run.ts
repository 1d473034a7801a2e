import type { Adapter, AdapterWriter } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import type { Method, MethodOutcome } from "../methods/method.ts";
import type { Plan } from "../plan/plan.ts";
import type { Recipe } from "../recipe/recipe.ts";
import type { ModuleFigures } from "../report/figures.ts";
import type { StepJournal } from "../resume/step_journal.ts";
import type { ProgressMeter } from "./progress.ts";
import type { Stopwatch } from "./stopwatch.ts";

/** The time of a merge by what it waited for. */
export type MergeWatch = Stopwatch<"read" | "compute" | "write">;

/** What both kinds of methods run in. */
export interface MergeRun {
  readonly recipe: Recipe;
  readonly method: Method;
  readonly plan: Plan;
  readonly adapters: readonly Adapter[];
  readonly device: Device;
  readonly writer: AdapterWriter;
  readonly watch: MergeWatch;
  readonly meter: ProgressMeter;
  readonly signal: AbortSignal | undefined;
  /** Finished steps of this merge, for methods that work for long. */
  readonly journal: (deciding: Readonly<Record<string, unknown>>) => Promise<StepJournal>;
}

/** What merging all modules gave. */
export interface MergedModules {
  readonly modules: readonly ModuleFigures[];
  /** What a whole-model method tells besides; empty for the others. */
  readonly outcome: MethodOutcome;
}
