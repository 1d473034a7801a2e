import type { BaseModel } from "./base/base_model.ts";
import type { OutputDType } from "./numbers/narrow.ts";
import type { StoredTensor } from "./tensors/tensor_file.ts";

/** Something in an adapter that is no error, but that a user should know. */
export interface Warning {
  readonly code: string;
  readonly message: string;
  /** The file, and the module or key in it. */
  readonly where: string;
}

/**
 * What kind of weight a module has. Its ΔW is a matrix in any case:
 * - `linear`: [out, in];
 * - `conv`: [out, channels · Π kernel], the weight [out, channels, …kernel] flattened, so that A is [r, channels · Π kernel];
 * - `embedding`: the table [vocabulary, width] itself, so that `outFeatures` is the vocabulary. PEFT stores its factors
 *   transposed and the other way round.
 */
export type ModuleForm =
  | { readonly kind: "linear" }
  | { readonly kind: "conv"; readonly kernel: readonly number[] }
  | { readonly kind: "embedding" };

/** What the tensors of a module are called in the file they come from. */
export interface ModuleKeys {
  readonly a: string;
  readonly b: string;
  /** The scalar that alpha lies in, where there is one. */
  readonly alpha?: string | undefined;
}

/** The LoRA factors of one module: ΔW = `scale` · B · A, [out, in]. */
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
  /** A, [rank, inFeatures]; of a convolution [rank, channels, …kernel], which is the same bytes. */
  readonly a: StoredTensor;
  /** B, [outFeatures, rank]; of a convolution [outFeatures, rank, 1, …]. */
  readonly b: StoredTensor;
  /** Default: linear. */
  readonly form?: ModuleForm | undefined;
  /** Known in layouts that leave a choice of names, so that the module can be written back under the same ones. */
  readonly keys?: ModuleKeys | undefined;
  /** The layout joins the path's parts by `_`, and which of them were dots is not known: the name still has them. */
  readonly isFlattened?: true | undefined;
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
   * @param b B, [out, r] row-major: ΔW = scale·B·A with the announced scale, which is 1 unless given
   */
  write(module: string, a: Float32Array | Float64Array, b: Float32Array | Float64Array): Promise<void>;
  /** Checks that every module was written, and completes the adapter. */
  finish(): Promise<void>;
  /** Removes what was written. */
  abort(): Promise<void>;
}

/** One module of an adapter that is to be written. */
export interface ModuleSpec {
  readonly name: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** r of the factors that will be written, at most the adapter's; default: that. */
  readonly rank?: number | undefined;
  /** A factor of B·A that the layout stores as alpha where it can, and multiplies into B where it cannot. Default 1. */
  readonly scale?: number | undefined;
  /** Default: linear. */
  readonly form?: ModuleForm | undefined;
  /** Names of its tensors in the layout that is written, instead of those that follow from the module's name. */
  readonly keys?: ModuleKeys | undefined;
}

/** What an adapter is to hold, whatever its layout. */
export interface AdapterSpec {
  readonly modules: readonly ModuleSpec[];
  /** The largest r. Layouts with one rank for all modules pad the others with zeros, which changes no ΔW. */
  readonly rank: number;
  readonly dtype: OutputDType;
  readonly baseModel?: string | undefined;
  /** Strings for the header of the weight file. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** The task as PEFT names it, such as `CAUSAL_LM`. */
  readonly taskType?: string | undefined;
  /** PEFT's `target_modules`. Default: the modules' last names where these cover whole layers, else their full names. */
  readonly targetModules?: readonly string[] | undefined;
  /** The base stores its weights as [in, out], as GPT-2's `Conv1D` does. */
  readonly fanInFanOut?: boolean | undefined;
  /** Facts about the base model, for layouts that depend on them. */
  readonly base?: BaseModel | undefined;
}
