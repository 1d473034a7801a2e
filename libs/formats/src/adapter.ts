import type { StoredTensor } from "./safetensors/read.ts";

/** Something in an adapter that is no error, but that a user should know. */
export interface Warning {
  readonly code: string;
  readonly message: string;
  /** The file, and the module or key in it. */
  readonly where: string;
}

/** The LoRA factors of one linear module: ΔW = `scale` · B · A, [out, in]. */
export interface LoraModule {
  /** The module's path in the base model, such as `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  /** r, as the tensors have it. */
  readonly rank: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** The factor of B·A: alpha / r, or alpha / √r for rank-stabilised LoRA. */
  readonly scale: number;
  readonly alpha: number;
  /** A, [rank, inFeatures]. */
  readonly a: StoredTensor;
  /** B, [outFeatures, rank]. */
  readonly b: StoredTensor;
}

/** One adapter, whatever layout it was stored in. */
export interface Adapter {
  /** The name of its folder or file. */
  readonly name: string;
  readonly path: string;
  /** The layout's id, such as `peft`. */
  readonly format: string;
  /** By module name, sorted. */
  readonly modules: ReadonlyMap<string, LoraModule>;
  /** The base model's name or path, where the adapter records one. */
  readonly baseModel: string | undefined;
  /** The task as PEFT names it, such as `CAUSAL_LM`, where recorded. */
  readonly taskType: string | undefined;
  /** The base stores its weights as [in, out] (GPT-2's `Conv1D`); A and B are as always. */
  readonly fanInFanOut: boolean;
  /** The configuration file's content. */
  readonly config: Readonly<Record<string, unknown>> | undefined;
  /** The weight file's metadata. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly warnings: readonly Warning[];
  /** Every file the adapter consists of, for hashing. */
  readonly files: readonly string[];
  close(): void;
  [Symbol.dispose](): void;
}

/** Writes an adapter module by module. */
export interface AdapterWriter {
  /**
   * @param module the module's name, as announced
   * @param a A, [r, in] row-major, r at most the announced rank
   * @param b B, [out, r] row-major, all scaling folded in: ΔW = B·A
   */
  write(module: string, a: Float32Array | Float64Array, b: Float32Array | Float64Array): Promise<void>;
  /** Checks that every module was written, and completes the adapter. */
  finish(): Promise<void>;
  /** Removes what was written. */
  abort(): Promise<void>;
}
