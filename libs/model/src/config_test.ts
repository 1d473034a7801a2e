import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { architectureOf, familyOf } from "./architectures/registry.ts";
import { parseDecoderConfig, windowOf } from "./config.ts";
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

Deno.test("parseConfig() finds the layers that slide, in families that have them", () => {
  const windows = (className: string, changes: Record<string, unknown>) => {
    const json = { ...SMALL_CONFIG, architectures: [className], sliding_window: 16, ...changes };
    const config = architectureOf(json, "").parseConfig(json, "");
    return Array.from({ length: config.layers }, (_, layer) => windowOf(config, layer));
  };
  const layers = { num_hidden_layers: 4 };
  assertEquals(windows("MistralForCausalLM", {}), [16, 16]);
  assertEquals(windows("MistralForCausalLM", { sliding_window: null }), [undefined, undefined]);
  assertEquals(windows("Qwen2ForCausalLM", {}), [undefined, undefined]);
  assertEquals(windows("Qwen2ForCausalLM", { use_sliding_window: true }), [undefined, undefined]);
  const late = { use_sliding_window: true, max_window_layers: 1 };
  assertEquals(windows("Qwen2ForCausalLM", late), [undefined, 16]);
  assertEquals(windows("LlamaForCausalLM", {}), [undefined, undefined]);
  assertEquals(windows("Gemma2ForCausalLM", layers), [16, undefined, 16, undefined]);
  assertEquals(
    windows("Gemma3ForCausalLM", { ...layers, sliding_window_pattern: 3 }),
    [16, 16, undefined, 16],
  );
});

Deno.test("parseConfig() reads Gemmas whose files leave out what is usual", () => {
  const { head_dim: _, tie_word_embeddings: _tied, ...bare } = SMALL_CONFIG;
  const two = architectureOf({ architectures: ["Gemma2ForCausalLM"] }, "").parseConfig(bare, "");
  assertEquals([two.headDim, two.attentionScale, two.tiedEmbeddings], [256, 1 / 16, true]);
  assertEquals([two.attentionSoftCap, two.outputSoftCap, two.activation], [50, 30, "gelu_tanh"]);
  // As Gemma 3 was published, before rotary settings were grouped by kind of layer.
  const older = {
    ...bare,
    rope_theta: 1e6,
    rope_local_base_freq: 1e4,
    rope_scaling: { rope_type: "linear", factor: 8 },
  };
  const newer = {
    ...bare,
    rope_parameters: {
      full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 },
      sliding_attention: { rope_type: "default", rope_theta: 1e4 },
    },
  };
  const { parseConfig } = architectureOf({ architectures: ["Gemma3ForCausalLM"] }, "");
  assertEquals(parseConfig(older, ""), parseConfig(newer, ""));
  assertEquals(parseConfig(older, "").rope, { theta: 1e6, scaling: { type: "linear", factor: 8 } });
  assertEquals(parseConfig(older, "").slidingRope, { theta: 1e4, scaling: { type: "default" } });
  assertEquals(parseConfig(older, "").attentionSoftCap, undefined);
});

Deno.test("parseConfig() reads the two sets of factors of a Phi-3", () => {
  const json = {
    ...SMALL_CONFIG,
    architectures: ["Phi3ForCausalLM"],
    original_max_position_embeddings: 16,
    rope_scaling: { type: "su", short_factor: [1, 1, 1, 2, 2, 2], long_factor: [1, 2, 3, 4, 5, 6] },
  };
  const { parseConfig } = architectureOf(json, "");
  const config = parseConfig(json, "");
  assertEquals(config.maxPositions, 64);
  const attentionFactor = Math.sqrt(1 + Math.log(4) / Math.log(16));
  assertEquals(config.rope!.scaling, {
    type: "longrope",
    shortFactors: [1, 1, 1, 2, 2, 2],
    longFactors: [1, 2, 3, 4, 5, 6],
    attentionFactor,
    originalLength: 16,
  });
  const short = { ...json, rope_scaling: { type: "longrope", short_factor: [1] } };
  assertStringIncludes(assertThrows(() => parseConfig(short, ""), ModelError).message, "6 values");
});

Deno.test("parseConfig() refuses GPT-2 settings that would change the mathematics", () => {
  const json = { n_layer: 1, n_embd: 16, n_head: 2, vocab_size: 8, architectures: ["GPT2LMHeadModel"] };
  const { parseConfig } = architectureOf(json, "");
  assertEquals(parseConfig(json, "").mlpSize, 64);
  assertEquals(parseConfig({ ...json, scale_attn_weights: false }, "").attentionScale, 1);
  for (const key of ["scale_attn_by_inverse_layer_idx", "add_cross_attention"]) {
    const error = assertThrows(() => parseConfig({ ...json, [key]: true }, ""), ModelError);
    assertEquals(error.code, `unsupported_${key}`);
  }
  const bare = assertThrows(() => parseConfig({ ...json, activation_function: "gelu" }, ""), ModelError);
  assertEquals(bare.code, "unsupported_hidden_act");
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

Deno.test("familyOf() refuses mixtures of experts by name, and says how they can be merged all the same", () => {
  const mixtures = [
    { architectures: ["MixtralForCausalLM"], num_local_experts: 8 },
    { architectures: ["Qwen3MoeForCausalLM"], num_experts: 128 },
    { architectures: ["DeepseekV3ForCausalLM"], n_routed_experts: 256 },
    // A class that is supported does not make a mixture of experts one that is.
    { architectures: ["LlamaForCausalLM"], num_local_experts: 4 },
  ];
  for (const json of mixtures) {
    const { code, message, fix } = assertThrows(() => familyOf(json, "m/config.json"), ModelError);
    assertEquals(code, "unsupported_architecture");
    const [experts] = Object.values(json).filter((value) => typeof value === "number");
    assertStringIncludes(message, `${json.architectures[0]}, a mixture of ${experts} experts`);
    assertStringIncludes(message, "T5ForConditionalGeneration");
    assertStringIncludes(fix, "capture");
    assertStringIncludes(fix, "data-free");
  }
  assertEquals(familyOf({ ...mixtures[3], num_local_experts: 1 }, "").className, "LlamaForCausalLM");
  assertEquals(familyOf({ model_type: "t5" }, "").className, "T5ForConditionalGeneration");
});
