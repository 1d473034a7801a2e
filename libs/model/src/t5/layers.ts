import { add, type Device, gemm, multiply, type Tensor } from "@lora-loom/tensor";
import type { Deltas } from "../base_model.ts";
import { applyLinear } from "../linear.ts";
import { activate } from "../ops/activation.ts";
import { attention, type DistanceBias } from "../ops/attention.ts";
import { rmsNorm } from "../ops/rms_norm.ts";
import { gatherRows } from "../ops/rows.ts";
import type { T5Config } from "./config.ts";
import { DistanceBiases } from "./distance_bias.ts";
import type { MlpNames, Stack } from "./modules.ts";
import type { T5Weights } from "./weights.ts";

/** The parts of a T5's forward pass, from which whole and stage-by-stage passes are put together. */
export class T5Layers implements Disposable {
  readonly #biases: Readonly<Record<Stack, DistanceBiases>>;

  constructor(readonly device: Device, readonly config: T5Config, readonly weights: T5Weights) {
    this.#biases = {
      encoder: new DistanceBiases(device, config, weights.distanceBias("encoder"), true),
      decoder: new DistanceBiases(device, config, weights.distanceBias("decoder"), false),
    };
  }

  /** `[tokens, hidden]` */
  embed(tokens: Uint32Array): Tensor {
    using ids = this.device.upload(tokens, [tokens.length], "u32");
    return gatherRows(this.weights.embeddings, ids);
  }

  /** Root-mean-square norm without a bias, by the name of its gain. */
  norm(x: Tensor, name: string): Tensor {
    return rmsNorm(x, this.weights.norm(name), this.config.normEpsilon);
  }

  /** A module with its delta, `[rows, in] → [rows, out]`; added to `into` if that is given. */
  linear(module: string, x: Tensor, deltas: Deltas, into?: Tensor): Tensor {
    return applyLinear(x, this.weights.linear(module), deltas.get(module), into);
  }

  /** Biases of self-attention for rows at these positions of sequences of at most `longest` tokens; dispose the origins. */
  distanceBias(stack: Stack, positions: Uint32Array, longest: number): DistanceBias {
    return this.#biases[stack].at(positions, longest);
  }

  /**
   * Attention of query rows to the rows of keys and values they see, `[rows, heads·headDim]`.
   *
   * @param spans first row and number of rows, `[rows, 2]`
   */
  attend(queries: Tensor, keys: Tensor, values: Tensor, spans: Uint32Array, bias?: DistanceBias): Tensor {
    using seen = this.device.upload(spans, [spans.length / 2, 2], "u32");
    return attention(queries, keys, values, seen, this.config, bias);
  }

  /** What the MLP's last module reads, `[rows, mlp]`: σ(x W₀ᵀ), times x W₁ᵀ where it is gated. */
  mlpHidden({ inputs: [first, factor] }: MlpNames, x: Tensor, deltas: Deltas): Tensor {
    const hidden = this.linear(first!, x, deltas);
    activate(this.config.activation, hidden);
    if (factor === undefined) return hidden;
    using factors = this.linear(factor, x, deltas);
    return multiply(hidden, factors, { into: hidden });
  }

  /** Logits `[rows, vocabulary]` of the decoder's final norm. */
  logits(x: Tensor): Tensor {
    return gemm(x, this.weights.head, { transposeB: true, alpha: this.config.outputScale });
  }

  /** A new stream: the old one plus a module's output. */
  written(module: string, input: Tensor, stream: Tensor, deltas: Deltas): Tensor {
    const output = this.linear(module, input, deltas);
    return add(stream, output, { into: output });
  }

  [Symbol.dispose](): void {
    this.#biases.encoder[Symbol.dispose]();
    this.#biases.decoder[Symbol.dispose]();
    this.weights[Symbol.dispose]();
  }
}
