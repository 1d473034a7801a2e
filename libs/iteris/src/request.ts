import type { Device } from "@lora-loom/tensor";
import type { BaseModel, Deltas } from "./base_model.ts";
import type { Journal } from "./journal.ts";
import type { OutputMetrics } from "./output_metrics.ts";

/** One calibration sequence: a prompt, the answer its own adapter gives, and the end token. */
export interface Sequence {
  readonly tokens: Uint32Array;
  /** Index of the answer's first token; `tokens.length` where there is no answer. */
  readonly answerStart: number;
}

/** One adapter to merge, with text of its task. */
export interface Task {
  /** For reports and errors. */
  readonly name: string;
  /** The adapter's deltas; modules may be missing, ranks may differ. */
  readonly deltas: Deltas;
  /** Calibration text; nothing is labelled. */
  readonly sequences: readonly Sequence[];
  /** m_i of c_i = λ_i m_i, above 0. Default 1. */
  readonly weight?: number;
}

/** How far a merge has come. */
export interface Progress {
  /** Name of the stage just done. */
  readonly stage: string;
  /** Stages done in all passes so far. */
  readonly done: number;
  /** Stages of all passes; fewer are run where `tolerance` ends the iterations early. */
  readonly total: number;
  /** The pass, from 1. */
  readonly iteration: number;
}

/** How much is held at once; the result does not depend on it beyond rounding. */
export interface MemoryLimits {
  /** Tokens that go through the model together. Default 1024. */
  readonly tokensPerChunk?: number;
  /** Bytes of stream states that may wait on the device. Default 2 GiB on a hardware GPU, otherwise none. */
  readonly deviceBytes?: number;
  /** Bytes of further stream states that may wait in host memory; the rest waits in a temporary file. Default 64 MiB. */
  readonly hostBytes?: number;
  /**
   * Modules with at most so many inputs are solved on the CPU in float64, larger ones on the GPU. Default 512, or 1024 where the
   * GPU is itself the CPU.
   */
  readonly hostSolverLimit?: number;
}

/** What both methods take. */
export interface MergeRequest<Options> {
  readonly device: Device;
  readonly model: BaseModel;
  readonly tasks: readonly Task[];
  readonly options?: Options;
  readonly memory?: MemoryLimits;
  /** How much each task's outputs matter; {@linkcode iterisPlus} alone looks at it. Absent: all alike. */
  readonly metrics?: OutputMetrics;
  /** What an interrupted run of this same request left, and where this one leaves what it solves. */
  readonly journal?: Journal;
  readonly progress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}
