import type { Tensor } from "@lora-loom/tensor";
import type { Delta } from "../base_model.ts";

/** What a module read while the base model ran with one adapter, recorded elsewhere. */
export type CapturedInputs = CapturedRows | CapturedGram;

/** X_i, a row for each token or position. */
export interface CapturedRows {
  readonly kind: "inputs";
  /** All rows together. */
  readonly rows: number;
  /** X_i in pieces `[rows, in]` on the device of the merge, each disposed once it was used; can be asked for once. */
  batches(): AsyncIterable<Tensor>;
}

/** S_i = X_iᵀX_i, of however many rows. */
export interface CapturedGram {
  readonly kind: "gram";
  /** `[in, in]`, row-major. */
  readonly values: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
}

/** One task at a module. */
export interface CapturedTask {
  /** For reports and errors. */
  readonly name: string;
  /** m_i of c_i = λ_i m_i, above 0. */
  readonly weight: number;
  /** W_i; `undefined` where the adapter lacks the module: its target is no change. */
  readonly delta: Delta | undefined;
  readonly inputs: CapturedInputs;
}

/** One module with what every task did and read there. Tensors are on the device of the merge and stay the caller's. */
export interface CapturedSite {
  readonly module: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly tasks: readonly CapturedTask[];
  /** W0, `[out, in]`; needed for `adaptiveWeights: "full"` alone. */
  readonly baseWeight: Tensor | undefined;
}
