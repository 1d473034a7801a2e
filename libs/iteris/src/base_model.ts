import type { Tensor } from "@lora-loom/tensor";

/** A low-rank change of one weight: ΔW = b·a, with the adapter's scale folded into `b`. */
export interface Delta {
  /** A, `[r, in]`. */
  readonly a: Tensor;
  /** s·B, `[out, r]`. */
  readonly b: Tensor;
}

/** Changes by module name. */
export type Deltas = ReadonlyMap<string, Delta>;

/** One linear layer, y = x Wᵀ. */
export interface Site {
  readonly module: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Whether its output is added to the residual stream as it is (attention output, MLP down projection). */
  readonly writesStream: boolean;
}

/** Modules that read one and the same input, such as q, k and v. Stages are numbered in execution order. */
export interface Stage {
  readonly index: number;
  readonly name: string;
  readonly sites: readonly Site[];
  /**
   * Which tokens are the rows of its input, where these are not all tokens of a sequence: in an encoder-decoder the prompt, or the
   * start token and then the answer.
   */
  readonly reads?: "prompt" | "answer";
}

/** What a batch of sequences looks like on entering a stage. Rows are the tokens that it reads, sequence after sequence, unpadded. */
export interface Activations extends Disposable {
  /** Tokens of each sequence. */
  readonly lengths: readonly number[];
  /** What the stage's modules read, `[tokens, in]`. */
  readonly input: Tensor;
  /** The residual stream before the stage's outputs are added, `[tokens, hidden]`. */
  readonly stream: Tensor;
  /** Everything {@linkcode BaseModel.restore} needs to rebuild these activations. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/**
 * A base model as IterIS sees it: a chain of stages that a batch is led through, with any deltas applied on the way. Forward
 * passes must be deterministic and causal in the stages: the input of a stage depends on the deltas of earlier stages alone.
 */
export interface BaseModel {
  /** All stages in execution order. */
  readonly stages: readonly Stage[];
  /**
   * Makes the weights of a stage, or the embeddings of sequences, usable until the result is disposed: for models that do not keep
   * all weights in memory. Called before `begin`, and once a pass before whatever is asked of a stage.
   */
  hold?(part: Stage | readonly Uint32Array[]): Promise<Disposable>;
  /**
   * Embeds `sequences` and leads them to the first stage.
   *
   * @param answerStarts where each one's answer begins, for models that read it apart from the prompt
   */
  begin(sequences: readonly Uint32Array[], answerStarts?: readonly number[]): Activations;
  /**
   * Runs `stage` with `deltas` applied and leads the batch to the next stage. `at` stays valid.
   *
   * @param deltas of this stage and of those before it
   */
  advance(stage: Stage, at: Activations, deltas: Deltas): Activations;
  /** Rebuilds activations that were saved on entering `stage`; takes over `tensors`. */
  restore(
    stage: Stage,
    lengths: readonly number[],
    tensors: ReadonlyMap<string, Tensor>,
    answerStarts?: readonly number[],
  ): Activations;
  /** The base weight W0 of a module, `[out, in]`, in f32 or 16 bits. The model keeps it. */
  weight(module: string): Tensor;
}
