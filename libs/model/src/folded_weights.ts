import type { Tensor } from "@lora-loom/tensor";
import { LINEAR_ROLES, linearName, type LinearRole } from "./architecture.ts";
import type { Deltas } from "./base_model.ts";
import { Decoder } from "./decoder.ts";
import { foldDelta } from "./linear.ts";
import type { DecoderWeights, LayerWeights, Linear } from "./weights.ts";

/**
 * A decoder whose adapted modules hold W0 + B·A, for passes that run many times. Disposing it frees the folded weights;
 * everything else stays the base decoder's.
 */
export function foldDeltas(base: Decoder, deltas: Deltas): Decoder {
  return new Decoder(base.device, base.architecture, base.config, new FoldedWeights(base, deltas));
}

class FoldedWeights implements DecoderWeights {
  /** W0 + B·A by module, filled as layers are first asked for. */
  readonly #folded = new Map<string, Tensor>();

  constructor(readonly base: Decoder, readonly deltas: Deltas) {}

  get embeddings(): Tensor {
    return this.base.weights.embeddings;
  }

  get head(): Tensor {
    return this.base.weights.head;
  }

  get finalNorm(): Tensor {
    return this.base.weights.finalNorm;
  }

  layer(index: number): LayerWeights {
    const { linears, norms } = this.base.weights.layer(index);
    const folded = LINEAR_ROLES.map((role) =>
      [role, this.#fold(linearName(this.base.architecture, index, role), linears[role])] as const
    );
    return { norms, linears: Object.fromEntries(folded) as Record<LinearRole, Linear> };
  }

  [Symbol.dispose](): void {
    for (const weight of this.#folded.values()) weight.dispose();
  }

  #fold(module: string, linear: Linear): Linear {
    const delta = this.deltas.get(module);
    if (!delta) return linear;
    let weight = this.#folded.get(module);
    if (!weight) {
      weight = foldDelta(linear, delta);
      this.#folded.set(module, weight);
    }
    return { ...linear, weight };
  }
}
