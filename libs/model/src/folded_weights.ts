import { sliceRows, type Tensor } from "@lora-loom/tensor";
import { linearName, type LinearRole, outputsOf, rolesOf } from "./architecture.ts";
import type { Delta, Deltas } from "./base_model.ts";
import { Decoder } from "./decoder.ts";
import { foldDelta } from "./linear.ts";
import type { LayerWeights, Linear } from "./weights.ts";

/**
 * A decoder whose adapted modules hold W0 + B·A, for passes that run many times. Disposing it frees the folded weights;
 * everything else stays the base decoder's.
 */
export function foldDeltas(base: Decoder, deltas: Deltas): Decoder {
  const { device, architecture, config } = base;
  const folded = new FoldedLayers(base, deltas);
  return new Decoder(device, architecture, config, {
    ...base.weights,
    layer: (index) => folded.layer(index),
    [Symbol.dispose]: () => folded[Symbol.dispose](),
  });
}

class FoldedLayers implements Disposable {
  /** W0 + B·A by layer and role, filled as layers are first asked for. */
  readonly #folded = new Map<string, Tensor>();

  constructor(readonly base: Decoder, readonly deltas: Deltas) {}

  layer(index: number): LayerWeights {
    const { architecture, weights } = this.base;
    const base = weights.layer(index);
    const folded = rolesOf(architecture).map((role) => {
      const delta = this.deltas.get(linearName(architecture, index, role));
      const linear = base.linears[role]!;
      return [role, delta ? this.#fold(`${index} ${role}`, role, linear, delta) : linear] as const;
    });
    return { ...base, linears: Object.fromEntries(folded) as Record<LinearRole, Linear> };
  }

  [Symbol.dispose](): void {
    for (const weight of this.#folded.values()) weight.dispose();
  }

  #fold(key: string, role: LinearRole, linear: Linear, delta: Delta): Linear {
    let weight = this.#folded.get(key);
    if (!weight) {
      const outputs = outputsOf(this.base.architecture, this.base.config, role);
      using b = outputs && sliceRows(delta.b, ...outputs);
      weight = foldDelta(linear, b ? { a: delta.a, b } : delta);
      this.#folded.set(key, weight);
    }
    return { ...linear, weight };
  }
}
