/** Base models run stage by stage with adapters applied, tokenizing, greedy decoding and its accuracy. */
export * from "./base_model.ts";
export type { DecoderConfig } from "./config.ts";
export { disposeDeltas } from "./deltas.ts";
export * from "./errors.ts";
export * from "./evaluate.ts";
export * from "./finite.ts";
export * from "./jsonl.ts";
export * from "./load_deltas.ts";
export type { OpenModelOptions } from "./model_family.ts";
export * from "./open_model.ts";
export type { RopeConfig, RopeScaling } from "./rope.ts";
export * from "./tokenizer.ts";
