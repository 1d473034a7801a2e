import type { Tensor } from "@lora-loom/tensor";
import type { BaseModel, Deltas, Site, Stage } from "../base_model.ts";
import { ModelError } from "../errors.ts";

/** Receives what one module read, `[tokens, in]`, and the gradient at what it gave, `[tokens, out]`: valid during the call only. */
export type GradientObserver = (site: Site, input: Tensor, gradient: Tensor) => void;

/** Gradients of some loss, where the way back starts. */
export interface LossGradients {
  /** At each of {@linkcode Trace.streams}; missing where the loss does not look at it. */
  readonly streams?: readonly (Tensor | undefined)[];
  /** At {@linkcode Trace.output}. */
  readonly output?: Tensor;
}

/** A pass that was run and can be gone back through, any number of times. Its tensors are valid until it is disposed. */
export interface Trace extends Disposable {
  /** Residual stream after each layer, `[tokens, hidden]`; which tokens they are is in {@linkcode DifferentiableModel.layerReads}. */
  readonly streams: readonly Tensor[];
  /** Output of the final norm, of the last stream's tokens, `[tokens, hidden]`. */
  readonly output: Tensor;
  /** Goes back, last layer first, and shows every adaptable module that a gradient reaches. */
  backward(gradients: LossGradients, observe: GradientObserver): void;
}

/** Options of {@linkcode DifferentiableModel.trace}. */
export interface TraceOptions {
  /** As {@linkcode BaseModel.begin} takes them. */
  readonly answerStarts?: readonly number[];
  /**
   * Bytes of intermediate results to keep for the way back; what goes beyond is computed again, layer by layer, from the layers'
   * inputs. The result is the same. Default 256 MiB.
   */
  readonly keepBytes?: number;
}

/** {@linkcode TraceOptions.keepBytes} where nothing else is asked for. */
export const DEFAULT_KEEP_BYTES = 256 * 2 ** 20;

/** A base model with a backward pass. */
export interface DifferentiableModel extends BaseModel {
  /**
   * Which tokens are the rows of each residual stream of a {@linkcode Trace}, as {@linkcode Stage.reads} says it: all of a sequence, or
   * in an encoder-decoder those of the prompt for the encoder's layers, and the start token and the answer for the decoder's.
   */
  readonly layerReads: readonly Stage["reads"][];
  /**
   * A whole pass that can be gone back through. Deltas are added to the weights first, so that both ways cost what the base model's do.
   *
   * @throws {ModelError} as `begin` and `checkDeltas` do
   */
  trace(sequences: readonly Uint32Array[], deltas: Deltas, options?: TraceOptions): Trace;
  /** The final norm of a residual stream, `[rows, hidden]`. */
  normalise(stream: Tensor): Tensor;
  /** Logits `[rows, vocabulary]` of outputs of the final norm, `[rows, hidden]`. */
  readOut(output: Tensor): Tensor;
  /**
   * The gradient at outputs of the final norm, `[rows, hidden]`.
   *
   * @param gradient at their logits, `[rows, vocabulary]`
   * @param logits that `readOut` gave for them
   */
  readOutBackward(gradient: Tensor, logits: Tensor): Tensor;
}

/**
 * The model, if its family has a backward pass; all families of this library have one.
 *
 * @param where what needs it, such as `refine`
 * @param fix what to do without it
 * @throws {ModelError} `no_backward_pass`, naming the family; `weights_streamed`, with what it would take to have them resident
 */
export function differentiable(model: BaseModel, where: string, fix: string): DifferentiableModel {
  const family = model.constructor.name.replace(/Model$/, "");
  if ("trace" in model && typeof model.trace === "function") {
    const known = model as DifferentiableModel;
    if (known.residency === "streamed") throw streamed(known, where, fix);
    return known;
  }
  throw new ModelError(
    "no_backward_pass",
    `${where} needs gradients, and ${family} has no backward pass`,
    fix,
    where,
  );
}

/** The way back goes through all layers at once, so that all have to be on the device. */
function streamed(model: BaseModel, where: string, fix: string): ModelError {
  const sites = model.stages.flatMap((stage) => stage.sites);
  const parameters = sites.reduce((sum, { inFeatures, outFeatures }) => sum + inFeatures * outFeatures, 0);
  return new ModelError(
    "weights_streamed",
    `${where} needs gradients, which need all weights on the device at once: ${
      (4 * parameters / 2 ** 30).toFixed(1)
    } GiB of matrices in f32; this model's are streamed from its files`,
    fix,
    where,
  );
}
