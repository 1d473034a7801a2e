import type { DifferentiableModel } from "@lora-loom/model";
import type { Device } from "@lora-loom/tensor";
import type { Session } from "../calibrated/session.ts";
import type { CheckpointFolder } from "./checkpoint.ts";
import type { HostPair } from "./learner.ts";
import type { RefineSettings } from "./parameters.ts";
import type { TaskData } from "./task_data.ts";

/** What a refinement needs. */
export interface RefineRequest {
  readonly device: Device;
  readonly model: DifferentiableModel;
  readonly session: Session;
  readonly tasks: readonly TaskData[];
  /** The factors to start from, evenly split. */
  readonly start: ReadonlyMap<string, HostPair>;
  readonly settings: RefineSettings;
  readonly seed: number;
  readonly checkpoints: (fingerprint: string) => CheckpointFolder;
  readonly signal: AbortSignal | undefined;
  readonly progress: (stage: string, done: number, total: number) => void;
  readonly warn: (code: string, message: string) => void;
}
