import type { Tensor } from "@lora-loom/tensor";
import type { Residency } from "./residency.ts";

/** What an adapter adds to one module's weight: ΔW = B·A, its scale folded into B. */
export interface Delta {
  /** `[rank, in]` */
  readonly a: Tensor;
  /** `[out, rank]` */
  readonly b: Tensor;
}

/** Deltas by module name, such as `model.layers.0.self_attn.q_proj`. Modules without a delta keep their base weight. */
export type Deltas = ReadonlyMap<string, Delta>;

/** One linear module that can carry a delta. */
export interface Site {
  readonly module: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Whether its output is added to the residual stream. */
  readonly writesStream: boolean;
}

/** Modules that read one and the same input, and so share its Gram matrix. */
export interface Stage {
  readonly index: number;
  /** Such as `model.layers.0.self_attn.qkv`. */
  readonly name: string;
  readonly sites: readonly Site[];
  /**
   * Which tokens are the rows of its input, where these are not all tokens of a sequence: in an encoder-decoder the prompt,
   * or the start token and then the answer.
   */
  readonly reads?: "prompt" | "answer";
}

/**
 * A batch on its way through the model, stopped before a stage. Rows are the tokens that the stage reads of all sequences,
 * one sequence after the other, without padding. Disposing it releases its tensors, except those that a later state still holds.
 */
export interface Activations extends Disposable {
  /** Tokens of each sequence. */
  readonly lengths: readonly number[];
  /** What the stage about to run reads, `[tokens, in]`; after the last stage, the output of the final norm. */
  readonly input: Tensor;
  /** Residual stream `[tokens, hidden]`, before the stage's outputs are added. */
  readonly stream: Tensor;
  /** All of the state by name, for moving it to host memory; {@linkcode BaseModel.restore} takes the same names. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/** Which token rows to compute logits for: all, the last of each sequence, or these, counted over the whole batch. */
export type Rows = "all" | "last" | Uint32Array;

/** Options of {@linkcode BaseModel.forward}. */
export interface ForwardOptions {
  /** As {@linkcode BaseModel.begin} takes them. */
  readonly answerStarts?: readonly number[];
  /** Called before each stage with what its modules read, `[tokens, in]`: valid during the call only. */
  readonly observe?: (stage: Stage, input: Tensor) => void;
  /** Default `all`. */
  readonly rows?: Rows;
}

/** Options of {@linkcode BaseModel.generate}. */
export interface GenerateOptions {
  readonly maxNewTokens: number;
  /** Token ids that end a completion. */
  readonly eos: number | readonly number[];
  /** Ends decoding between two tokens. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A base model that runs stage by stage, which is what solving for adapters layer by layer needs, or as a whole.
 * Nothing here changes the model's weights. The same calls on the same device give the same bytes.
 */
export interface BaseModel extends Disposable {
  /** In the order of computation. */
  readonly stages: readonly Stage[];
  /** Where the weights are while nobody holds them. */
  readonly residency: Residency;
  /**
   * Brings weights to the device and keeps them there until the result is disposed: those of a stage, before `advance` or `weight`;
   * the embeddings of sequences, before `begin`; or the head, before `logits`. A resident model has them there anyway.
   *
   * @throws {ModelError} `non_finite` naming a damaged weight; {FormatError} for a file that cannot be read
   */
  hold(part: Stage | readonly Uint32Array[] | "head"): Promise<Disposable>;
  /**
   * Embeds token sequences of any lengths, up to the input of the first stage. Positions restart in every sequence.
   *
   * @param answerStarts where the answer begins in each sequence, for models that read it apart from the prompt: an
   *   encoder-decoder encodes what stands before, and decodes its start token and what follows. Default: none has an answer.
   * @throws {ModelError} `token_out_of_range`, `sequence_too_long`, `empty_sequence`; `weights_not_held`
   */
  begin(sequences: readonly Uint32Array[], answerStarts?: readonly number[]): Activations;
  /**
   * Runs a stage's modules, with their deltas, and all that follows up to the next stage's input. `at` stays the caller's
   * to dispose.
   *
   * @param deltas of this stage and of those before it: an encoder-decoder shows the inputs of all cross-attentions' keys
   *   and values in one stage, and computes them where they are attended to
   * @throws {ModelError} `adapter_mismatch` when a delta of this stage has another shape than its module; `wrong_stage`;
   *   `weights_not_held`
   */
  advance(stage: Stage, at: Activations, deltas: Deltas): Activations;
  /** Makes the state before `stage` from the tensors of an earlier one, which it takes over. */
  restore(
    stage: Stage,
    lengths: readonly number[],
    tensors: ReadonlyMap<string, Tensor>,
    answerStarts?: readonly number[],
  ): Activations;
  /** Most positions of a sequence, those of its answer included; infinite where there is no such limit. */
  readonly maxPositions: number;
  /** Logits `[rows, vocabulary]` from the state after the last stage. */
  logits(at: Activations, rows?: Rows): Tensor;
  /** A module's base weight `[out, in]`, in f32 or as it is stored. It belongs to the model. */
  weight(module: string): Tensor;
  /**
   * A whole pass of a resident model; the logits are the caller's to dispose. {@linkcode forwardHolding} runs any.
   *
   * @throws {ModelError} as `begin`, `advance` and `checkDeltas` do
   */
  forward(sequences: readonly Uint32Array[], deltas: Deltas, options?: ForwardOptions): Tensor;
  /**
   * Greedy completions of all prompts at once. A completion includes the token that ended it, if one did before
   * `maxNewTokens`. A streamed model reads all its weights once a token of the longest completion.
   *
   * @throws {ModelError} `non_finite` when weights and deltas give NaN or infinite logits; as `begin` and `checkDeltas` do
   */
  generate(prompts: readonly Uint32Array[], deltas: Deltas, options: GenerateOptions): Promise<Uint32Array[]>;
  /**
   * Checks that every delta fits a module of this model.
   *
   * @throws {ModelError} `adapter_mismatch`
   */
  checkDeltas(deltas: Deltas): void;
  dispose(): void;
}
