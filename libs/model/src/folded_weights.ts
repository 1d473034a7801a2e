import type { Tensor } from "@lora-loom/tensor";
import { linearName, type LinearRole, outputsOf, rolesOf } from "./architecture.ts";
import type { Delta, Deltas } from "./base_model.ts";
import { Decoder } from "./decoder.ts";
import { disposableOnce } from "./holds.ts";
import { foldDelta } from "./linear.ts";
import type { Residency } from "./residency.ts";
import type { DecoderWeights, LayerWeights, Linear } from "./weights.ts";

/**
 * A decoder whose adapted modules hold W0 + B·A, for passes that run many times. Disposing it frees the folded weights;
 * everything else stays the base decoder's.
 */
export function foldDeltas(base: Decoder, deltas: Deltas): Decoder {
  const { device, architecture, config } = base;
  return new Decoder(device, architecture, config, new FoldedWeights(base, deltas));
}

class FoldedWeights implements DecoderWeights {
  readonly residency: Residency;
  readonly finalNorm: Tensor;
  readonly finalNormBias?: Tensor;
  readonly positions?: Tensor;
  /** W0 + B·A by layer and role, filled as layers are first asked for, and emptied as they are let go. */
  readonly #folded = new Map<number, Map<LinearRole, Tensor>>();

  constructor(readonly base: Decoder, readonly deltas: Deltas) {
    const { residency, finalNorm, finalNormBias, positions } = base.weights;
    this.residency = residency;
    this.finalNorm = finalNorm;
    if (finalNormBias) this.finalNormBias = finalNormBias;
    if (positions) this.positions = positions;
  }

  get head(): Tensor {
    return this.base.weights.head;
  }

  embed(tokens: Uint32Array): Tensor {
    return this.base.weights.embed(tokens);
  }

  layer(index: number): LayerWeights {
    const { architecture, weights } = this.base;
    const base = weights.layer(index);
    const folded = rolesOf(architecture).map((role) => {
      const delta = this.deltas.get(linearName(architecture, index, role));
      const linear = base.linears[role]!;
      return [role, delta ? this.#fold(index, role, linear, delta) : linear] as const;
    });
    return { ...base, linears: Object.fromEntries(folded) as Record<LinearRole, Linear> };
  }

  async holdLinears(layer: number, roles: readonly LinearRole[]): Promise<Disposable> {
    const held = await this.base.weights.holdLinears(layer, roles);
    if (this.residency === "resident") return held;
    return disposableOnce(() => {
      this.#forget(layer);
      held[Symbol.dispose]();
    });
  }

  holdEmbeddings(tokens: Uint32Array): Promise<Disposable> {
    return this.base.weights.holdEmbeddings(tokens);
  }

  holdHead(): Promise<Disposable> {
    return this.base.weights.holdHead();
  }

  expect(layer: number, roles: readonly LinearRole[]): void {
    this.base.weights.expect(layer, roles);
  }

  [Symbol.dispose](): void {
    for (const layer of [...this.#folded.keys()]) this.#forget(layer);
  }

  #fold(layer: number, role: LinearRole, linear: Linear, delta: Delta): Linear {
    const folded = this.#folded.get(layer) ?? new Map<LinearRole, Tensor>();
    this.#folded.set(layer, folded);
    let weight = folded.get(role);
    if (!weight) {
      const outputs = outputsOf(this.base.architecture, this.base.config, role);
      weight = foldDelta(linear, delta, outputs);
      folded.set(role, weight);
    }
    return { ...(linear.bias && { bias: linear.bias }), weight };
  }

  #forget(layer: number): void {
    for (const weight of this.#folded.get(layer)?.values() ?? []) weight.dispose();
    this.#folded.delete(layer);
  }
}
