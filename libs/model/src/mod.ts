/** Base models run stage by stage with adapters applied, tokenizing, greedy decoding and its accuracy. */
export * from "./base_model.ts";
export * from "./backward/differentiable.ts";
export * from "./backward/factor_gradients.ts";
export type { DecoderConfig } from "./config.ts";
export { disposeDeltas } from "./deltas.ts";
export * from "./errors.ts";
export * from "./evaluate.ts";
export * from "./finite.ts";
export * from "./jsonl.ts";
export * from "./load_deltas.ts";
export type { OpenModelOptions } from "./model_family.ts";
export { type ModelShapes, readModelShapes, type StoredModelShapes } from "./model_shapes.ts";
export * from "./open_model.ts";
export {
  bytesPerParameter,
  chooseResidency,
  computesOnHost,
  type Residency,
  type ResidencyChoice,
} from "./residency.ts";
export { forwardHolding } from "./forward_holding.ts";
export * from "./ops/adam.ts";
export { type Divergence, divergence } from "./ops/divergence.ts";
export { drawnScores } from "./ops/drawn_scores.ts";
export { gatherRows, scatterRows } from "./ops/rows.ts";
export type { RopeConfig, RopeScaling } from "./rope.ts";
export * from "./tokenizer.ts";
