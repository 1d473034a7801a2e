import type { Tensor } from "@lora-loom/tensor";
import type { Activations, BaseModel, Deltas, ForwardOptions } from "./base_model.ts";

/**
 * A whole pass that holds the weights of each stage while it runs, so that it needs no more of them on the device at once.
 *
 * @throws {ModelError} as {@linkcode BaseModel.forward} and {@linkcode BaseModel.hold} do
 */
export async function forwardHolding(
  model: BaseModel,
  sequences: readonly Uint32Array[],
  deltas: Deltas,
  options: ForwardOptions = {},
): Promise<Tensor> {
  model.checkDeltas(deltas);
  let state: Activations;
  {
    using _embeddings = await model.hold(sequences);
    state = model.begin(sequences, options.answerStarts);
  }
  try {
    for (const stage of model.stages) {
      using _weights = await model.hold(stage);
      options.observe?.(stage, state.input);
      const next = model.advance(stage, state, deltas);
      state[Symbol.dispose]();
      state = next;
    }
    using _head = await model.hold("head");
    return model.logits(state, options.rows);
  } finally {
    state[Symbol.dispose]();
  }
}
