import { add, type Device, gemm, multiply, sliceRows, type Tensor } from "@lora-loom/tensor";
import {
  type Architecture,
  linearName,
  type LinearRole,
  type NormRole,
  outputsOf,
  POST_NORMS,
  writesPlainly,
  type WritingRole,
} from "./architecture.ts";
import type { Deltas } from "./base_model.ts";
import type { DecoderConfig } from "./config.ts";
import { applyLinear } from "./linear.ts";
import { activate } from "./ops/activation.ts";
import { attention } from "./ops/attention.ts";
import { layerNorm } from "./ops/layer_norm.ts";
import { layerNormBackward } from "./ops/layer_norm_backward.ts";
import { rmsNorm } from "./ops/rms_norm.ts";
import { rmsNormBackward } from "./ops/rms_norm_backward.ts";
import { rotary, type RotaryOptions } from "./ops/rotary.ts";
import { gatherRows } from "./ops/rows.ts";
import { siluMul } from "./ops/silu_mul.ts";
import { softCap } from "./ops/soft_cap.ts";
import { RotaryAngles } from "./rotary_angles.ts";
import type { DecoderWeights } from "./weights.ts";

/** The parts of a decoder's forward pass, from which whole and stage-by-stage passes are put together. */
export class Decoder implements Disposable {
  readonly #angles: RotaryAngles | undefined;
  /** Of sliding layers, where they have their own. */
  readonly #slidingAngles: RotaryAngles | undefined;

  constructor(
    readonly device: Device,
    readonly architecture: Architecture,
    readonly config: DecoderConfig,
    readonly weights: DecoderWeights,
  ) {
    const { rope, slidingRope, headDim } = config;
    this.#angles = rope && new RotaryAngles(device, rope, headDim);
    this.#slidingAngles = slidingRope && new RotaryAngles(device, slidingRope, headDim);
  }

  /**
   * The stream before the first layer, `[tokens, hidden]`.
   *
   * @param positions of each token in its sequence
   */
  embed(tokens: Uint32Array, positions: Uint32Array): Tensor {
    const stream = this.weights.embed(tokens);
    const { embeddingScale } = this.config;
    if (embeddingScale !== undefined) add(stream, stream, { alpha: embeddingScale, beta: 0, into: stream });
    if (!this.weights.positions) return stream;
    using rows = this.device.upload(positions, [positions.length], "u32");
    using places = gatherRows(this.weights.positions, rows);
    return add(stream, places, { into: stream });
  }

  /** A layer's norm of whole rows. */
  norm(layer: number, role: NormRole, x: Tensor): Tensor {
    const { norms, normBiases } = this.weights.layer(layer);
    return this.#normalised(x, norms[role]!, normBiases?.[role]);
  }

  /** What the head reads. */
  finalNorm(x: Tensor): Tensor {
    return this.#normalised(x, this.weights.finalNorm, this.weights.finalNormBias);
  }

  /** Adds to `into` the gradient at what a layer's norm read, from the one at what it gave. */
  normBackward(layer: number, role: NormRole, read: Tensor, gradient: Tensor, into: Tensor): void {
    this.#backThroughNorm(read, this.weights.layer(layer).norms[role]!, gradient, into);
  }

  /** The same of the final norm. */
  finalNormBackward(read: Tensor, gradient: Tensor, into: Tensor): void {
    this.#backThroughNorm(read, this.weights.finalNorm, gradient, into);
  }

  /** x Wᵀ of a layer's module with its bias and delta, `[rows, in] → [rows, out]`; added to `into` if that is given. */
  linear(layer: number, role: LinearRole, x: Tensor, deltas: Deltas, into?: Tensor): Tensor {
    const module = this.weights.layer(layer).linears[role]!;
    const delta = deltas.get(linearName(this.architecture, layer, role));
    const outputs = outputsOf(this.architecture, this.config, role);
    if (!delta || !outputs) return applyLinear(x, module, delta, into);
    using b = sliceRows(delta.b, ...outputs);
    return applyLinear(x, module, { a: delta.a, b }, into);
  }

  /** Adds what a module makes of `x` to the stream, in place. */
  write(layer: number, role: WritingRole, x: Tensor, deltas: Deltas, stream: Tensor): void {
    if (writesPlainly(this.architecture, role)) {
      this.linear(layer, role, x, deltas, stream);
      return;
    }
    using output = this.linear(layer, role, x, deltas);
    using normed = this.norm(layer, POST_NORMS[role], output);
    add(stream, normed, { into: stream });
  }

  /** What to add to positions before they are rotated to, in a sequence of so many tokens; after {@linkcode reservePositions}. */
  firstAngle(length: number): number {
    return this.#angles?.firstRow(length) ?? 0;
  }

  /** Rotated queries `[rows, queryHeads·headDim]`, at the given position of each row (u32 `[rows]`). */
  queries(layer: number, x: Tensor, positions: Tensor, deltas: Deltas): Tensor {
    return this.#rotated(layer, "query", x, positions, deltas);
  }

  /** Rotated keys, `[rows, keyValueHeads·headDim]`. */
  keys(layer: number, x: Tensor, positions: Tensor, deltas: Deltas): Tensor {
    return this.#rotated(layer, "key", x, positions, deltas);
  }

  /**
   * The heads of `x`, which it takes over, rotated as a layer does to the given position of each row (u32 `[rows]`), or back; as they are
   * where positions are learned.
   */
  rotate(layer: number, x: Tensor, positions: Tensor, options: RotaryOptions = {}): Tensor {
    const angles = this.#anglesOf(layer);
    if (!angles) return x;
    using straight = x;
    return rotary(straight, positions, angles.table, options);
  }

  /** Attention of query rows to the spans of key and value rows they see (u32 `[rows, 2]`). */
  attend(queries: Tensor, keys: Tensor, values: Tensor, spans: Tensor): Tensor {
    return attention(queries, keys, values, spans, this.config);
  }

  /** What the MLP's last module reads, `[rows, mlp]`: σ(gate)·up, or σ(up) where there is no gate. */
  gatedUp(layer: number, x: Tensor, deltas: Deltas): Tensor {
    const { activation } = this.config;
    if (this.architecture.linears.gate === undefined) {
      const up = this.linear(layer, "up", x, deltas);
      activate(activation, up);
      return up;
    }
    using gate = this.linear(layer, "gate", x, deltas);
    using up = this.linear(layer, "up", x, deltas);
    if (activation === "silu") return siluMul(gate, up);
    activate(activation, gate);
    return multiply(gate, up);
  }

  /** Logits `[rows, vocabulary]` of final-norm outputs. */
  logits(x: Tensor): Tensor {
    const logits = gemm(x, this.weights.head, { transposeB: true });
    const { outputSoftCap } = this.config;
    if (outputSoftCap !== undefined) softCap(logits, outputSoftCap);
    return logits;
  }

  /** Makes sure that positions up to `positions` have their angles, before passes that would else grow them repeatedly. */
  reservePositions(positions: number): void {
    this.#angles?.upTo(positions);
    this.#slidingAngles?.upTo(positions);
  }

  [Symbol.dispose](): void {
    this.#angles?.[Symbol.dispose]();
    this.#slidingAngles?.[Symbol.dispose]();
    this.weights[Symbol.dispose]();
  }

  #normalised(x: Tensor, gain: Tensor, bias: Tensor | undefined): Tensor {
    const { normEpsilon } = this.config;
    return bias ? layerNorm(x, gain, bias, normEpsilon) : rmsNorm(x, gain, normEpsilon);
  }

  #backThroughNorm(read: Tensor, gain: Tensor, gradient: Tensor, into: Tensor): void {
    const backward = this.architecture.normKind === "layer" ? layerNormBackward : rmsNormBackward;
    backward(read, gain, gradient, this.config.normEpsilon, into);
  }

  /** Nothing where positions are learned. */
  #anglesOf(layer: number): RotaryAngles | undefined {
    return this.config.slidingLayers?.[layer] ? this.#slidingAngles ?? this.#angles : this.#angles;
  }

  #rotated(layer: number, role: "query" | "key", x: Tensor, positions: Tensor, deltas: Deltas): Tensor {
    const angles = this.#anglesOf(layer);
    const gain = this.weights.layer(layer).norms[role];
    const projected = this.linear(layer, role, x, deltas);
    if (!angles && !gain) return projected;
    using before = projected;
    if (!angles) return this.#normalised(before, gain!, undefined);
    using normed = gain && this.#normalised(before, gain, undefined);
    return rotary(normed ?? before, positions, angles.table);
  }
}
