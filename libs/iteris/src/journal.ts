import type { Stage } from "./base_model.ts";
import type { SiteReport } from "./report.ts";

/** A factor in host memory, to the bit what it is on the device. */
export interface HostMatrix {
  readonly shape: readonly number[];
  /** f32 on a GPU, f64 on the CPU device. */
  readonly values: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
}

/** A stage that is done: enough to lead the samples on without solving it again. */
export interface SolvedStage {
  /** W = b·a by module. */
  readonly deltas: ReadonlyMap<string, { readonly a: HostMatrix; readonly b: HostMatrix }>;
  readonly sites: readonly SiteReport[];
}

/**
 * Keeps the solved stages of one merge, so that an interrupted merge can go on. What it holds must come from the same request on the
 * same device: then the result has the same bytes as that of a merge that was never interrupted.
 */
export interface Journal {
  /**
   * Whether a stage was solved before.
   *
   * @param pass from 1
   */
  holds(pass: number, stage: Stage): boolean;
  /** What was recorded of a stage that it holds. */
  replay(pass: number, stage: Stage): Promise<SolvedStage>;
  /** Takes a stage with adapted modules when it is done. Stages come in order, pass after pass. */
  record(pass: number, stage: Stage, solved: SolvedStage): Promise<void>;
}
