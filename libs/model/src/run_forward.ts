import type { Tensor } from "@lora-loom/tensor";
import type { BaseModel, Deltas, ForwardOptions } from "./base_model.ts";

/** {@linkcode BaseModel.forward} by way of all stages. */
export function runForward(
  model: BaseModel,
  sequences: readonly Uint32Array[],
  deltas: Deltas,
  options: ForwardOptions,
): Tensor {
  model.checkDeltas(deltas);
  let state = model.begin(sequences, options.answerStarts);
  try {
    for (const stage of model.stages) {
      options.observe?.(stage, state.input);
      const next = model.advance(stage, state, deltas);
      state[Symbol.dispose]();
      state = next;
    }
    return model.logits(state, options.rows);
  } finally {
    state[Symbol.dispose]();
  }
}
