import { type Device, gemm, type Tensor } from "@lora-loom/tensor";
import { type Architecture, linearName, type LinearRole } from "./architecture.ts";
import type { Delta, Deltas } from "./base_model.ts";
import type { DecoderConfig } from "./config.ts";
import { addBias } from "./ops/add_bias.ts";
import { attention } from "./ops/attention.ts";
import { rmsNorm } from "./ops/rms_norm.ts";
import { rotary, type RotaryOptions } from "./ops/rotary.ts";
import { gatherRows } from "./ops/rows.ts";
import { siluMul } from "./ops/silu_mul.ts";
import { RotaryAngles } from "./rotary_angles.ts";
import type { DecoderWeights, Linear } from "./weights.ts";

/** The parts of a decoder's forward pass, from which whole and stage-by-stage passes are put together. */
export class Decoder implements Disposable {
  readonly #angles: RotaryAngles;

  constructor(
    readonly device: Device,
    readonly architecture: Architecture,
    readonly config: DecoderConfig,
    readonly weights: DecoderWeights,
  ) {
    this.#angles = new RotaryAngles(device, config);
  }

  /** `[tokens, hidden]` */
  embed(tokens: Uint32Array): Tensor {
    using ids = this.device.upload(tokens, [tokens.length], "u32");
    return gatherRows(this.weights.embeddings, ids);
  }

  norm(x: Tensor, gain: Tensor): Tensor {
    return rmsNorm(x, gain, this.config.normEpsilon);
  }

  /** x Wᵀ of a layer's module with its bias and delta, `[rows, in] → [rows, out]`; added to `into` if that is given. */
  linear(layer: number, role: LinearRole, x: Tensor, deltas: Deltas, into?: Tensor): Tensor {
    const module = this.weights.layer(layer).linears[role];
    return applyLinear(x, module, deltas.get(linearName(this.architecture, layer, role)), into);
  }

  /** Rotated queries `[rows, queryHeads·headDim]`, at the given position of each row (u32 `[rows]`). */
  queries(layer: number, x: Tensor, positions: Tensor, deltas: Deltas): Tensor {
    return this.#rotated(
      this.linear(layer, "query", x, deltas),
      this.weights.layer(layer).norms.query,
      positions,
    );
  }

  /** Rotated keys, `[rows, keyValueHeads·headDim]`. */
  keys(layer: number, x: Tensor, positions: Tensor, deltas: Deltas): Tensor {
    return this.#rotated(
      this.linear(layer, "key", x, deltas),
      this.weights.layer(layer).norms.key,
      positions,
    );
  }

  /** Rotates the heads of `x` to the given position of each row (u32 `[rows]`), or back. */
  rotate(x: Tensor, positions: Tensor, options: RotaryOptions = {}): Tensor {
    return rotary(x, positions, this.#angles.table, options);
  }

  /** Attention of query rows to the spans of key and value rows they see (u32 `[rows, 2]`). */
  attend(queries: Tensor, keys: Tensor, values: Tensor, spans: Tensor): Tensor {
    return attention(queries, keys, values, spans, this.config);
  }

  /** SiLU(gate)·up of the MLP, `[rows, mlp]`. */
  gatedUp(layer: number, x: Tensor, deltas: Deltas): Tensor {
    using gate = this.linear(layer, "gate", x, deltas);
    using up = this.linear(layer, "up", x, deltas);
    return siluMul(gate, up);
  }

  /** Logits `[rows, vocabulary]` of final-norm outputs. */
  logits(x: Tensor): Tensor {
    return gemm(x, this.weights.head, { transposeB: true });
  }

  /** Makes sure that positions up to `positions` have their angles, before passes that would else grow them repeatedly. */
  reservePositions(positions: number): void {
    this.#angles.upTo(positions);
  }

  [Symbol.dispose](): void {
    this.#angles[Symbol.dispose]();
    this.weights[Symbol.dispose]();
  }

  /** Takes over `x`. */
  #rotated(x: Tensor, gain: Tensor | undefined, positions: Tensor): Tensor {
    using projected = x;
    using normed = gain ? this.norm(projected, gain) : undefined;
    return this.rotate(normed ?? projected, positions);
  }
}

function applyLinear(x: Tensor, { weight, bias }: Linear, delta: Delta | undefined, into?: Tensor): Tensor {
  const y = gemm(x, weight, { transposeB: true, ...(into && { into, beta: 1 }) });
  if (bias) addBias(bias, y);
  if (delta) {
    using inner = gemm(x, delta.a, { transposeB: true });
    gemm(inner, delta.b, { transposeB: true, into: y, beta: 1 });
  }
  return y;
}
