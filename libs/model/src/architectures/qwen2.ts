import * as v from "valibot";
import type { Architecture } from "../architecture.ts";
import { parseDecoderConfig } from "../config.ts";
import { parseWith } from "../config_errors.ts";
import { llama } from "./llama.ts";

/** Attention slides from layer `max_window_layers` on, where the switch is on. */
const slidingSchema = v.looseObject({
  use_sliding_window: v.optional(v.boolean(), false),
  max_window_layers: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 28),
});

/** Qwen2 and Qwen2.5 (arXiv 2407.10671): a Llama with biases of queries, keys and values. */
export const qwen2: Architecture = {
  ...llama,
  modelType: "qwen2",
  className: "Qwen2ForCausalLM",
  hasBias: (role) => role === "query" || role === "key" || role === "value",
  parseConfig(json, where) {
    const config = parseDecoderConfig(json, where);
    const sliding = parseWith(slidingSchema, json, where);
    if (!sliding.use_sliding_window || config.slidingWindow === undefined) return config;
    const slidingLayers = Array.from(
      { length: config.layers },
      (_, layer) => layer >= sliding.max_window_layers,
    );
    return { ...config, slidingLayers };
  },
};
