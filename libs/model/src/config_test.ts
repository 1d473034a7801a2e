import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { architectureOf } from "./architectures/registry.ts";
import { parseDecoderConfig } from "./config.ts";
import { ModelError } from "./errors.ts";
import { SMALL_CONFIG } from "./test_support/random_model.ts";

function refusal(changes: Record<string, unknown>): ModelError {
  return assertThrows(() => parseDecoderConfig({ ...SMALL_CONFIG, ...changes }, "m/config.json"), ModelError);
}

Deno.test("parseDecoderConfig() reads rotary settings of both generations alike", () => {
  const { rope_theta: _, ...bare } = SMALL_CONFIG;
  const scaling = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  };
  const older = { ...bare, rope_theta: 7000, rope_scaling: { type: "llama3", ...scaling } };
  const newer = { ...bare, rope_parameters: { rope_theta: 7000, rope_type: "llama3", ...scaling } };
  const rope = parseDecoderConfig(older, "").rope;
  assertEquals(rope, parseDecoderConfig(newer, "").rope);
  assertEquals(rope, {
    theta: 7000,
    scaling: { type: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 32 },
  });
});

Deno.test("parseDecoderConfig() derives what older configurations leave out", () => {
  const { head_dim: _h, num_key_value_heads: _k, rope_theta: _t, ...bare } = SMALL_CONFIG;
  const config = parseDecoderConfig({ ...bare, hidden_size: 48, rope_scaling: null }, "");
  assertEquals([config.headDim, config.keyValueHeads], [8, 6]);
  assertEquals(config.rope, { theta: 10000, scaling: { type: "default" } });
});

Deno.test("parseDecoderConfig() refuses by name what would change the mathematics", () => {
  assertEquals(refusal({ hidden_act: "gelu" }).code, "unsupported_hidden_act");
  assertEquals(refusal({ partial_rotary_factor: 0.5 }).code, "unsupported_partial_rotary_factor");
  assertEquals(refusal({ head_dim: 10 }).code, "unsupported_head_dim");
  const rope = refusal({ rope_scaling: { rope_type: "yarn", factor: 4 } });
  assertEquals([rope.code, rope.where], ["unsupported_rope_scaling", "m/config.json"]);
  assertStringIncludes(rope.message, "yarn");
  const quantised = refusal({ quantization_config: { quant_method: "gptq" } });
  assertEquals(quantised.code, "unsupported_quantization");
  assertStringIncludes(quantised.message, "gptq");
});

Deno.test("parseDecoderConfig() names the key when a size is missing or wrong", () => {
  const error = refusal({ num_hidden_layers: "two" });
  assertEquals(error.code, "invalid_config");
  assertStringIncludes(error.message, "num_hidden_layers");
  assertStringIncludes(refusal({ num_key_value_heads: 4 }).message, "does not divide");
  assertStringIncludes(refusal({ rope_scaling: { type: "linear" } }).message, "factor");
});

Deno.test("parseConfig() keeps sequences within the sliding window of families that have one in use", () => {
  const longest = (className: string, changes: Record<string, unknown>) => {
    const json = { ...SMALL_CONFIG, architectures: [className], sliding_window: 16, ...changes };
    return architectureOf(json, "").parseConfig(json, "").maxPositions;
  };
  assertEquals(longest("MistralForCausalLM", {}), 16);
  assertEquals(longest("MistralForCausalLM", { sliding_window: null }), 64);
  assertEquals(longest("Qwen2ForCausalLM", {}), 64);
  assertEquals(longest("Qwen2ForCausalLM", { use_sliding_window: true }), 16);
  assertEquals(longest("LlamaForCausalLM", {}), 64);
});

Deno.test("architectureOf() finds a family by class or, without one, by type, and refuses others by name", () => {
  assertEquals(architectureOf({ architectures: ["LlamaForCausalLM"] }, "").modelType, "llama");
  assertEquals(architectureOf({ model_type: "llama" }, "").modelType, "llama");
  for (const json of [{ architectures: ["MambaForCausalLM"] }, { model_type: "mamba" }]) {
    const error = assertThrows(() => architectureOf(json, "m/config.json"), ModelError);
    assertEquals(error.code, "unsupported_architecture");
    assertStringIncludes(error.message.toLowerCase(), "mamba");
  }
});
