import { assertEquals, assertStringIncludes } from "@std/assert";
import type { Adapter } from "../../adapter.ts";
import {
  assertClose,
  assertFileRefused,
  denseDelta,
  random,
  type RawTensor,
  scalar,
  withFile,
  zeros,
} from "../../test_support.ts";

const Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
const Q_NAME = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const CONV = "lora_unet_down_blocks_0_resnets_0_conv1";

function pair(key: string, rank = 2, inFeatures = 3, outFeatures = 4): Record<string, RawTensor> {
  return {
    [`${key}.lora_down.weight`]: random(1, rank, inFeatures),
    [`${key}.lora_up.weight`]: random(2, outFeatures, rank),
  };
}

const names = (adapter: Adapter) => [...adapter.modules.keys()];

/** Real fronts of keys, and the modules that they name. */
const NAMES: readonly (readonly [key: string, name: string])[] = [
  [Q, Q_NAME],
  ["lora_unet_mid_block_attentions_0_proj_in", "unet.mid_block.attentions.0.proj_in"],
  [
    "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj",
    "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj",
  ],
  [
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
  ],
  ["lora_unet_down_blocks_1_resnets_0_conv_shortcut", "unet.down_blocks.1.resnets.0.conv_shortcut"],
  ["lora_unet_down_blocks_1_resnets_0_time_emb_proj", "unet.down_blocks.1.resnets.0.time_emb_proj"],
  [
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k",
    "unet.input_blocks.4.1.transformer_blocks.0.attn1.to_k",
  ],
  ["lora_unet_output_blocks_2_0_emb_layers_1", "unet.output_blocks.2.0.emb_layers.1"],
  ["lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"],
  [
    "lora_te1_text_model_encoder_layers_11_self_attn_out_proj",
    "text_encoder.text_model.encoder.layers.11.self_attn.out_proj",
  ],
  [
    "lora_te2_text_model_encoder_layers_31_self_attn_q_proj",
    "text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj",
  ],
  [
    "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
    "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q",
  ],
  [
    "lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0",
    "text_encoder_3.encoder.block.0.layer.1.DenseReluDense.wi_0",
  ],
  ["lora_unet_double_blocks_0_img_attn_qkv", "transformer.double_blocks.0.img_attn.qkv"],
  ["lora_unet_double_blocks_18_txt_mlp_2", "transformer.double_blocks.18.txt_mlp.2"],
  ["lora_unet_double_blocks_7_img_mod_lin", "transformer.double_blocks.7.img_mod.lin"],
  ["lora_unet_single_blocks_37_modulation_lin", "transformer.single_blocks.37.modulation.lin"],
  ["lora_unet_single_blocks_0_linear1", "transformer.single_blocks.0.linear1"],
  [
    "lora_unet_joint_blocks_3_context_block_adaLN_modulation_1",
    "transformer.joint_blocks.3.context_block.adaLN_modulation.1",
  ],
  ["lora_unet_joint_blocks_3_x_block_attn_qkv", "transformer.joint_blocks.3.x_block.attn.qkv"],
  ["lora_unet_joint_blocks_3_x_block_mlp_fc1", "transformer.joint_blocks.3.x_block.mlp.fc1"],
  [
    "lora_transformer_single_transformer_blocks_0_proj_mlp",
    "transformer.single_transformer_blocks.0.proj_mlp",
  ],
  ["lora_unet_blocks_0_cross_attn_k_img", "transformer.blocks.0.cross_attn.k_img"],
  ["lora_unet_transformer_blocks_5_attn_add_k_proj", "transformer.transformer_blocks.5.attn.add_k_proj"],
  ["lora_unet_layers_2_feed_forward_w1", "transformer.layers.2.feed_forward.w1"],
  ["lycoris_model_layers_0_self_attn_q_proj", "model.layers.0.self_attn.q_proj"],
  ["lycoris_model_layers_0_mlp_gate_up_proj", "model.layers.0.mlp.gate_up_proj"],
  ["lora_unet_unet_mid_block_attentions_0_proj_in", "unet.mid_block.attentions.0.proj_in"],
];
for (const [key, name] of NAMES) {
  Deno.test(`openAdapter() takes kohya's ${key} for ${name}`, () =>
    withFile(pair(key), (adapter) => assertEquals([adapter.format, ...names(adapter)], ["kohya", name])));
}

Deno.test("openAdapter() takes te3 of a Flux file for diffusers' second text encoder", () =>
  withFile(
    {
      ...pair("lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
      ...pair("lora_unet_single_blocks_0_linear2"),
    },
    (adapter) =>
      assertEquals(names(adapter), [
        "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q",
        "transformer.single_blocks.0.linear2",
      ]),
  ));

Deno.test("openAdapter() takes HunyuanVideo's img_attn_qkv for one module where its other names show the model", () =>
  withFile(
    {
      ...pair("lora_unet_double_blocks_0_img_attn_qkv"),
      ...pair("lora_unet_double_blocks_0_img_mlp_fc1"),
    },
    (adapter) =>
      assertEquals(names(adapter), [
        "transformer.double_blocks.0.img_attn_qkv",
        "transformer.double_blocks.0.img_mlp.fc1",
      ]),
  ));

Deno.test("openAdapter() keeps the underscores of names it does not know, and says so", () =>
  withFile(pair("lora_unet_strange_block_0_foo"), (adapter) => {
    const module = adapter.modules.get("transformer.strange_block_0_foo")!;
    assertEquals([module.isFlattened, adapter.warnings.map(({ code }) => code)], [true, ["names_flattened"]]);
    assertStringIncludes(adapter.warnings[0]!.message, "--base DIR");
  }));

Deno.test("openAdapter() takes the dots of unknown names from the base model", () => {
  const base = { name: "x", moduleNames: ["strange_block.0.foo"] };
  return withFile(pair("lora_unet_strange_block_0_foo"), (adapter) => {
    assertEquals([names(adapter), adapter.warnings], [["transformer.strange_block.0.foo"], []]);
  }, { base });
});

const ALPHAS: readonly (readonly [what: string, alpha: RawTensor | undefined, scale: number])[] = [
  ["there is none", undefined, 1],
  ["it is a scalar", scalar(1), 0.5],
  ["it has one dimension", { shape: [1], values: [4] }, 2],
  ["it is negative", scalar(-2), -1],
];
for (const [what, alpha, scale] of ALPHAS) {
  Deno.test(`openAdapter() divides kohya's alpha by the module's own rank when ${what}`, () =>
    withFile({ ...pair(Q), ...(alpha ? { [`${Q}.alpha`]: alpha } : {}) }, (adapter) => {
      const module = adapter.modules.get(Q_NAME)!;
      assertEquals([module.scale, module.alpha, module.keys?.alpha], [
        scale,
        2 * scale,
        alpha && `${Q}.alpha`,
      ]);
    }));
}

Deno.test("openAdapter() multiplies a Tucker convolution out: Σ up·mid·down", () => {
  const [up, mid, down] = [random(1, 5, 2, 1, 1), random(2, 2, 3, 3, 2), random(3, 3, 4, 1, 1)];
  return withFile({
    [`${CONV}.lora_down.weight`]: down,
    [`${CONV}.lora_mid.weight`]: mid,
    [`${CONV}.lora_up.weight`]: up,
    [`${CONV}.alpha`]: scalar(1),
  }, async (adapter) => {
    const module = adapter.modules.get("unet.down_blocks.0.resnets.0.conv1")!;
    assertEquals([module.rank, module.inFeatures, module.outFeatures, module.scale], [2, 24, 5, 0.5]);
    assertEquals(module.form, { kind: "conv", kernel: [3, 2] });
    const expected = new Float64Array(5 * 24);
    for (let o = 0; o < 5; o++) {
      for (let i = 0; i < 4; i++) {
        for (let k = 0; k < 6; k++) {
          for (let p = 0; p < 2; p++) {
            for (let q = 0; q < 3; q++) {
              expected[o * 24 + i * 6 + k]! += 0.5 * up.values[o * 2 + p]! *
                mid.values[(p * 3 + q) * 6 + k]! * down.values[q * 4 + i]!;
            }
          }
        }
      }
    }
    assertClose(await denseDelta(module), expected, 1e-6);
  });
});

/** Tensors of other kinds of adapters, with what the refusal must name. */
const VARIANTS: readonly (readonly [kind: string, tensors: Record<string, RawTensor>])[] = [
  ["dora", { ...pair(Q), [`${Q}.dora_scale`]: zeros(4, 1) }],
  ["lora_bias", { ...pair(Q), [`${Q}.lora_up.bias`]: zeros(4) }],
  ["loha", {
    [`${Q}.hada_w1_a`]: zeros(4, 2),
    [`${Q}.hada_w1_b`]: zeros(2, 3),
    [`${Q}.hada_w2_a`]: zeros(4, 2),
    [`${Q}.hada_w2_b`]: zeros(2, 3),
  }],
  ["lokr", { [`${Q}.lokr_w1`]: zeros(2, 2), [`${Q}.lokr_w2`]: zeros(2, 3) }],
  ["diff", { [`${Q}.diff`]: zeros(4, 3) }],
  ["diff", { ...pair(Q), [`${Q}.diff_b`]: zeros(4) }],
  ["norm", { "lora_unet_mid_block_resnets_0_norm1.w_norm": zeros(3) }],
  ["ia3", { [`${Q}.weight`]: zeros(4), [`${Q}.on_input`]: scalar(0) }],
  ["oft", { [`${Q}.oft_blocks`]: zeros(2, 2, 2) }],
  ["glora", { [`${Q}.a1.weight`]: zeros(2, 2) }],
  ["reshape", { ...pair(Q), [`${Q}.reshape_weight`]: zeros(2) }],
  ["scalar", { ...pair(Q), [`${Q}.scalar`]: scalar(1) }],
  ["full", { ...pair(Q), [`${Q}.weight`]: zeros(4, 3) }],
];
for (const [kind, tensors] of VARIANTS) {
  Deno.test(`openAdapter() refuses ${kind} by name (${Object.keys(tensors).at(-1)!.split(".").at(-1)}), with the way out`, async () => {
    const error = await assertFileRefused("unsupported_variant", tensors);
    assertStringIncludes(error.fix, `--drop ${kind}`);
    const isNamed = Object.keys(tensors).some((key) =>
      error.message.includes(key) && error.where.endsWith(key)
    );
    assertEquals(isNamed, true, error.message);
  });

  Deno.test(`openAdapter() drops ${kind} on request (${Object.keys(tensors).at(-1)!.split(".").at(-1)}), with a warning for each tensor`, async () => {
    const other = pair("lora_unet_mid_block_attentions_0_proj_in");
    await withFile({ ...other, ...tensors }, (adapter) => {
      const dropped = adapter.warnings.filter(({ code }) => code === "dropped");
      assertEquals(
        dropped.length,
        Object.keys(tensors).filter((key) => !/lora_(up|down)\.weight$/.test(key)).length,
      );
      assertEquals(adapter.modules.has("unet.mid_block.attentions.0.proj_in"), true);
    }, { drop: [kind, "full"] });
  });
}

const REFUSED:
  readonly (readonly [what: string, code: string, tensors: Record<string, RawTensor>, fix: string])[] = [
    ["alpha is 0", "alpha_zero", { ...pair(Q), [`${Q}.alpha`]: scalar(0) }, "Set alpha"],
    ["alpha is infinite", "alpha_invalid", { ...pair(Q), [`${Q}.alpha`]: scalar(Infinity) }, "damaged"],
    ["alpha has two values", "alpha_invalid", { ...pair(Q), [`${Q}.alpha`]: zeros(2) }, "damaged"],
    ["up is missing", "incomplete_pair", { [`${Q}.lora_down.weight`]: zeros(2, 3) }, "incomplete"],
    ["down is missing", "incomplete_pair", { [`${Q}.lora_up.weight`]: zeros(3, 2) }, "incomplete"],
    ["only alpha is there", "incomplete_pair", { ...pair(CONV), [`${Q}.alpha`]: scalar(1) }, "incomplete"],
    ["the ranks differ", "shape_mismatch", { ...pair(Q), [`${Q}.lora_up.weight`]: zeros(4, 3) }, "damaged"],
    ["the rank is 0", "invalid_rank", pair(Q, 0), "without this module"],
    ["mid does not fit", "shape_mismatch", {
      [`${CONV}.lora_down.weight`]: zeros(2, 3, 1, 1),
      [`${CONV}.lora_mid.weight`]: zeros(2, 3, 3, 3),
      [`${CONV}.lora_up.weight`]: zeros(4, 2, 1, 1),
    }, "damaged"],
    ["a convolution has groups", "grouped_conv", {
      [`${CONV}.lora_down.weight`]: zeros(4, 3, 3, 3),
      [`${CONV}.lora_up.weight`]: zeros(8, 2, 1, 1),
    }, "grouped"],
    ["a key is of no known kind", "foreign_key", { ...pair(Q), [`${Q}.surprise`]: zeros(1) }, "--drop"],
    [
      "two endings say the same",
      "duplicate_module",
      { ...pair(Q), [`${Q}.lora_A.weight`]: zeros(2, 3) },
      "own",
    ],
    [
      "a name is very long",
      "name_too_long",
      { [`lora_unet_${"x".repeat(1000)}.alpha`]: scalar(1) },
      "hostile",
    ],
    ["keys of PEFT stand there too", "mixed_layouts", {
      ...pair(Q),
      "base_model.model.x.lora_A.weight": zeros(2, 3),
    }, "own"],
  ];
for (const [what, code, tensors, fix] of REFUSED) {
  Deno.test(`openAdapter() answers ${code} when ${what} in a kohya file`, async () => {
    assertStringIncludes((await assertFileRefused(code, tensors)).fix, fix);
  });
}

Deno.test("openAdapter() names a key of each layout when a file mixes two", async () => {
  const error = await assertFileRefused("mixed_layouts", {
    ...pair(Q),
    "unet.x.to_q.lora_A.weight": zeros(2, 3),
  });
  assertStringIncludes(error.message, `${Q}.lora_down.weight`);
  assertStringIncludes(error.message, "unet.x.to_q.lora_A.weight");
});

Deno.test("openAdapter() leaves out the modules that drop names, all tensors of them", () =>
  withFile({ ...pair(Q), [`${Q}.alpha`]: scalar(0), ...pair(CONV) }, (adapter) => {
    assertEquals(names(adapter), ["unet.down_blocks.0.resnets.0.conv1"]);
    assertEquals(adapter.warnings.length, 3);
  }, { drop: ["*.to_q"] }));

Deno.test("openAdapter() expands LoHa exactly: (w1_a·w1_b) ⊙ (w2_a·w2_b)", () => {
  const [w1a, w1b, w2a, w2b] = [random(1, 4, 2), random(2, 2, 3), random(3, 4, 2), random(4, 2, 3)];
  return withFile({
    [`${Q}.hada_w1_a`]: w1a,
    [`${Q}.hada_w1_b`]: w1b,
    [`${Q}.hada_w2_a`]: w2a,
    [`${Q}.hada_w2_b`]: w2b,
    [`${Q}.alpha`]: scalar(1),
  }, async (adapter) => {
    const module = adapter.modules.get(Q_NAME)!;
    assertEquals([module.rank, module.scale], [4, 0.5]);
    const expected = product(w1a, w1b).map((value, i) => 0.5 * value * product(w2a, w2b)[i]!);
    assertClose(await denseDelta(module), expected, 1e-6);
  }, { expand: true });
});

/** Which parts of a LoKr are factored, and the scale that alpha 3 gives. */
const LOKR: readonly (readonly [first: boolean, second: boolean, scale: number])[] = [
  [false, false, 1],
  [false, true, 1.5],
  [true, false, 1],
  [true, true, 1.5],
];
for (const [first, second, scale] of LOKR) {
  Deno.test(`openAdapter() expands LoKr exactly: kron(w1${first ? "_a·w1_b" : ""}, w2${second ? "_a·w2_b" : ""})`, () => {
    const [w1a, w1b, w2a, w2b] = [random(1, 2, 3), random(2, 3, 3), random(3, 4, 2), random(4, 2, 5)];
    const w1 = { shape: [2, 3], values: product(w1a, w1b).map(Math.fround) };
    const w2 = { shape: [4, 5], values: product(w2a, w2b).map(Math.fround) };
    return withFile({
      ...(first ? { [`${Q}.lokr_w1_a`]: w1a, [`${Q}.lokr_w1_b`]: w1b } : { [`${Q}.lokr_w1`]: w1 }),
      ...(second ? { [`${Q}.lokr_w2_a`]: w2a, [`${Q}.lokr_w2_b`]: w2b } : { [`${Q}.lokr_w2`]: w2 }),
      [`${Q}.alpha`]: scalar(3),
    }, async (adapter) => {
      const module = adapter.modules.get(Q_NAME)!;
      assertEquals([module.inFeatures, module.outFeatures, module.scale], [15, 8, scale]);
      const expected = Array.from({ length: 8 * 15 }, (_, at) => {
        const [row, column] = [Math.floor(at / 15), at % 15];
        return scale * w1.values[Math.floor(row / 4) * 3 + Math.floor(column / 5)]! *
          w2.values[(row % 4) * 5 + column % 5]!;
      });
      assertClose(await denseDelta(module), expected, 1e-6);
    }, { expand: true });
  });
}

for (const key of ["hada_t1", "lokr_t2"]) {
  Deno.test(`openAdapter() refuses to expand the Tucker form (${key})`, async () => {
    const kind = key.startsWith("hada") ? "hada_w1_a" : "lokr_w1";
    const tensors = { [`${Q}.${kind}`]: zeros(2, 2), [`${Q}.${key}`]: zeros(2, 2, 3, 3) };
    const error = await assertFileRefused("cannot_expand", tensors, { expand: true });
    assertStringIncludes(error.message, key);
  });
}

Deno.test("openAdapter() refuses to expand a convolution, whose kernel it cannot know", async () => {
  const tensors = Object.fromEntries(
    ["w1_a", "w1_b", "w2_a", "w2_b"].map((part) => [`${CONV}.hada_${part}`, zeros(2, 2)]),
  );
  const error = await assertFileRefused("cannot_expand", tensors, { expand: true });
  assertStringIncludes(error.message, "kernel");
});

/** The product of two matrices in float64. */
function product(left: RawTensor, right: RawTensor): number[] {
  const [rows, inner] = left.shape as [number, number];
  const columns = right.shape[1]!;
  return Array.from({ length: rows * columns }, (_, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    for (let k = 0; k < inner; k++) {
      sum += left.values[row * inner + k]! * right.values[k * columns + column]!;
    }
    return sum;
  });
}
