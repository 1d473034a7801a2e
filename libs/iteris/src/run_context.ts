import type { Device, Tensor } from "@lora-loom/tensor";
import type { BaseModel, Stage } from "./base_model.ts";
import type { Journal } from "./journal.ts";
import type { Settings } from "./options.ts";
import type { OutputMetrics } from "./output_metrics.ts";
import type { Plan } from "./plan.ts";
import type { StateStore } from "./streams/state_store.ts";

/** What every pass of one merge works with. */
export interface Run {
  readonly device: Device;
  /** Where small systems are solved in float64; `device` itself, if that is the CPU. */
  readonly host: Device;
  readonly model: BaseModel;
  readonly settings: Settings;
  readonly plan: Plan;
  readonly store: StateStore;
  readonly metrics: OutputMetrics | undefined;
  readonly journal: Journal | undefined;
  readonly tokensPerChunk: number;
  /** Stages with more inputs are solved on the device. */
  readonly hostSolverLimit: number;
  /** λ_i by task and module: they depend on the experts alone, so the first pass finds them for all. */
  readonly adaptiveWeights: Map<string, number>;
  readonly onStage: (stage: Stage) => void;
  readonly signal: AbortSignal | undefined;
}

/** Up to so many inputs, a float64 factorisation on the CPU costs less than it gains to do it elsewhere. */
export function defaultHostSolverLimit({ info }: Device): number {
  return info.class === "software" || info.class === "cpu" ? 1024 : 512;
}

/** Where a stage is solved. */
export function solvingDevice({ device, host, hostSolverLimit }: Run, stage: Stage): Device {
  return stage.sites[0]!.inFeatures <= hostSolverLimit ? host : device;
}

/** W0 where the target needs it. */
export function baseWeightFor({ settings, model }: Run, module: string): Tensor | undefined {
  return settings.drift ? model.weight(module) : undefined;
}

/** Unit roundoff of sums on a device. */
export function roundoffOf({ info }: Device): number {
  return info.backend === "cpu" ? 2 ** -53 : 2 ** -24;
}
