import type { ModelShapes, Residency } from "@lora-loom/model";

/** Sizes of the base model that needs follow from. */
export type BaseShapes = Pick<ModelShapes, "layers" | "hiddenSize" | "vocabularySize" | "keyValueWidth"> & {
  readonly stages: readonly {
    readonly sites: readonly {
      readonly module: string;
      readonly inFeatures: number;
      readonly outFeatures: number;
      readonly writesStream: boolean;
    }[];
  }[];
  readonly parameters: number;
  readonly storedBytes: number;
};

/** Calibration sequences of one task, with the longest answers that they may get. */
export interface TaskTokens {
  readonly tokens: number;
  readonly longest: number;
}

/** Prompts that are decoded in one call. */
export interface AnsweredPrompts {
  /** With the longest answers. */
  readonly tokens: number;
  readonly prompts: number;
  /** How often, with one adapter or another. */
  readonly times: number;
}

/** A calibrated merge, in numbers. */
export interface Workload {
  readonly base: BaseShapes;
  /** Modules that are merged. */
  readonly adapted: ReadonlySet<string>;
  /** Elements of all factors of all adapters. */
  readonly adapterElements: number;
  /** Elements of the merged factors. */
  readonly mergedElements: number;
  readonly tasks: readonly TaskTokens[];
  readonly answers: readonly AnsweredPrompts[];
  /** Whether solutions are dense: a row for every output rather than for every rank. */
  readonly corrects: boolean;
  /** Whether samples are kept out to choose α by. */
  readonly holdsOut: boolean;
  /** How often all samples go through the model. */
  readonly passes: number;
  /** Longest answer. */
  readonly maxNewTokens: number;
  readonly residency: Residency;
  readonly device: DeviceTraits;
}

/** What matters of a device. */
export interface DeviceTraits {
  /** Of one number. */
  readonly elementBytes: number;
  /** Whether its memory is the host's. */
  readonly onHost: boolean;
  /** Whether products pack their operands first, and read matrices as they are stored. */
  readonly packs: boolean;
  /** Modules with at most so many inputs are solved in float64 in host memory. */
  readonly hostSolverLimit: number;
}

/** How much may wait where, and how many tokens go through the model together. */
export interface Budgets {
  readonly tokensPerChunk: number;
  /** Bytes of states that may wait on the device. */
  readonly deviceBytes: number;
  /** Bytes of states that may wait in host memory. */
  readonly hostBytes: number;
  /** Bytes of keys and values of the prompts that are decoded together. */
  readonly keyValueBytes: number;
}
