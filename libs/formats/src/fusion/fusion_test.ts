import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { Adapter, LoraModule } from "../adapter.ts";
import {
  assertClose,
  assertRefused,
  denseDelta,
  random,
  type RawTensor,
  scalar,
  withFile,
} from "../test_support.ts";
import { computedTensor } from "../tensors/derived_tensor.ts";
import { fuseModules } from "./fuse_modules.ts";
import { inDiffusersScheme, inOriginalScheme } from "./schemes.ts";
import { splitModule } from "./split_module.ts";

function module(
  seed: number,
  rank: number,
  inFeatures: number,
  outFeatures: number,
  scale = 1,
): LoraModule {
  const tensor = (offset: number, shape: number[]) =>
    computedTensor(
      "x",
      shape,
      () => Promise.resolve(new Float32Array(random(seed + offset, ...shape).values)),
    );
  const a = tensor(0, [rank, inFeatures]);
  const b = tensor(1, [outFeatures, rank]);
  return { name: `m${seed}`, rank, inFeatures, outFeatures, scale, alpha: scale * rank, a, b };
}

const stacked = async (modules: readonly LoraModule[]) =>
  (await Promise.all(modules.map(denseDelta))).flatMap((delta) => [...delta]);

Deno.test("splitModule() gives the rows of ΔW to the parts", () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 4 }),
      fc.nat(99),
      async (rows, rank, seed) => {
        const fused = module(seed, rank, 3, rows.reduce((sum, count) => sum + count, 0), 0.5);
        const parts = await splitModule(fused, rows.map((count, i) => ({ name: `p${i}`, rows: count })));
        assertEquals(
          parts.map(({ name, outFeatures }) => [name, outFeatures]),
          rows.map((count, i) => [`p${i}`, count]),
        );
        assertEquals(await stacked(parts), [...await denseDelta(fused)]);
      },
    ),
    { seed: 5, numRuns: 60 },
  ));

Deno.test("fuseModules() stacks the rows of the parts' ΔW, whatever their ranks and scales", () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          rank: fc.integer({ min: 1, max: 3 }),
          rows: fc.integer({ min: 1, max: 4 }),
          scale: fc.constantFrom(0.5, 1, 2),
        }),
        { minLength: 1, maxLength: 4 },
      ),
      fc.nat(99),
      async (shapes, seed) => {
        const parts = shapes.map(({ rank, rows, scale }, i) => module(seed + 10 * i, rank, 3, rows, scale));
        const fused = await fuseModules("f", parts.map((part) => ({ rows: part.outFeatures, module: part })));
        assertClose(await denseDelta(fused), await stacked(parts), 1e-6);
      },
    ),
    { seed: 6, numRuns: 60 },
  ));

Deno.test("fuseModules() leaves the rows of missing parts at zero", async () => {
  const part = module(1, 2, 3, 4);
  const fused = await fuseModules("f", [{ rows: 2, module: undefined }, { rows: 4, module: part }]);
  const delta = await denseDelta(fused);
  assertEquals([...delta.subarray(0, 6)], [0, 0, 0, 0, 0, 0]);
  assertEquals([...delta.subarray(6)], [...await denseDelta(part)]);
});

Deno.test("splitModule() undoes fuseModules() with the ranks there were, and the other way round", async () => {
  const parts = [module(1, 2, 3, 4), module(10, 3, 3, 2)];
  const rows = parts.map(({ outFeatures }, i) => ({ name: `p${i}`, rows: outFeatures }));
  const fused = await fuseModules("f", parts.map((part) => ({ rows: part.outFeatures, module: part })));
  assertEquals(fused.rank, 5);
  const split = await splitModule(fused, rows);
  assertEquals(split.map(({ rank }) => rank), [2, 3]);
  assertEquals(await stacked(split), await stacked(parts));
  const whole = module(20, 4, 3, 6);
  const again = await splitModule(whole, rows);
  const refused = await fuseModules("f", again.map((part) => ({ rows: part.outFeatures, module: part })));
  assertEquals([refused.rank, [...await denseDelta(refused)]], [4, [...await denseDelta(whole)]]);
});

Deno.test("splitModule() and fuseModules() refuse parts that do not fit", async () => {
  const error = await assertRefused(
    () => splitModule(module(1, 2, 3, 4), [{ name: "q", rows: 3 }]),
    "cannot_split",
  );
  assertStringIncludes(error.message, "q 3");
  const parts = [module(1, 2, 3, 4), module(2, 2, 5, 4)].map((part) => ({ rows: 4, module: part }));
  await assertRefused(() => fuseModules("f", parts), "cannot_fuse");
  await assertRefused(() => fuseModules("f", [{ rows: 4, module: undefined }]), "cannot_fuse");
  await assertRefused(() => fuseModules("f", [{ rows: 3, module: parts[0]!.module }]), "cannot_fuse");
});

/** Width of a Flux in miniature: Q, K and V are as wide, the feed-forward four times. */
const WIDTH = 4;

function pairs(shapes: Record<string, [outFeatures: number, inFeatures: number]>): Record<string, RawTensor> {
  return Object.fromEntries(
    Object.entries(shapes).flatMap(([key, [outFeatures, inFeatures]], i) => [
      [`lora_unet_${key}.lora_down.weight`, random(3 * i, 2, inFeatures)],
      [`lora_unet_${key}.lora_up.weight`, random(3 * i + 1, outFeatures, 2)],
      [`lora_unet_${key}.alpha`, scalar(1)],
    ]),
  );
}

const FLUX = pairs({
  double_blocks_3_img_attn_qkv: [3 * WIDTH, WIDTH],
  double_blocks_3_txt_attn_qkv: [3 * WIDTH, WIDTH],
  double_blocks_3_img_attn_proj: [WIDTH, WIDTH],
  double_blocks_3_txt_attn_proj: [WIDTH, WIDTH],
  double_blocks_3_img_mlp_0: [4 * WIDTH, WIDTH],
  double_blocks_3_img_mlp_2: [WIDTH, 4 * WIDTH],
  double_blocks_3_txt_mlp_0: [4 * WIDTH, WIDTH],
  double_blocks_3_img_mod_lin: [6 * WIDTH, WIDTH],
  single_blocks_7_linear1: [7 * WIDTH, WIDTH],
  single_blocks_7_linear2: [WIDTH, 5 * WIDTH],
  single_blocks_7_modulation_lin: [3 * WIDTH, WIDTH],
  final_layer_adaLN_modulation_1: [2 * WIDTH, WIDTH],
});

const delta = async (
  adapter: Adapter,
  name: string,
) => [...await denseDelta(adapter.modules.get(`transformer.${name}`)!)];

Deno.test("inDiffusersScheme() splits and renames kohya's Flux, and inOriginalScheme() puts it together again", () =>
  withFile(FLUX, async (original) => {
    const split = await inDiffusersScheme(original);
    assertEquals([...split.modules.keys()].map((name) => name.replace("transformer.", "")), [
      "norm_out.linear",
      "single_transformer_blocks.7.attn.to_k",
      "single_transformer_blocks.7.attn.to_q",
      "single_transformer_blocks.7.attn.to_v",
      "single_transformer_blocks.7.norm.linear",
      "single_transformer_blocks.7.proj_mlp",
      "single_transformer_blocks.7.proj_out",
      "transformer_blocks.3.attn.add_k_proj",
      "transformer_blocks.3.attn.add_q_proj",
      "transformer_blocks.3.attn.add_v_proj",
      "transformer_blocks.3.attn.to_add_out",
      "transformer_blocks.3.attn.to_k",
      "transformer_blocks.3.attn.to_out.0",
      "transformer_blocks.3.attn.to_q",
      "transformer_blocks.3.attn.to_v",
      "transformer_blocks.3.ff.net.0.proj",
      "transformer_blocks.3.ff.net.2",
      "transformer_blocks.3.ff_context.net.0.proj",
      "transformer_blocks.3.norm1.linear",
    ]);
    const linear1 = await delta(original, "single_blocks.7.linear1");
    const single = (part: string) => delta(split, `single_transformer_blocks.7.${part}`);
    assertEquals(
      [
        ...await single("attn.to_q"),
        ...await single("attn.to_k"),
        ...await single("attn.to_v"),
        ...await single("proj_mlp"),
      ],
      linear1,
    );
    // Diffusers has the scale of the last modulation before its shift.
    const modulation = await delta(original, "final_layer.adaLN_modulation.1");
    const half = modulation.length / 2;
    assertEquals(await delta(split, "norm_out.linear"), [
      ...modulation.slice(half),
      ...modulation.slice(0, half),
    ]);
    const back = await inOriginalScheme(split);
    assertEquals([...back.modules.keys()], [...original.modules.keys()]);
    for (const name of original.modules.keys()) {
      assertEquals([...await denseDelta(back.modules.get(name)!)], [
        ...await denseDelta(original.modules.get(name)!),
      ]);
      assertEquals(back.modules.get(name)!.rank, 2, name);
    }
  }));

Deno.test("inDiffusersScheme() splits and renames SD3, swapping the halves of its last block's context", () =>
  withFile(
    pairs({
      joint_blocks_0_x_block_attn_qkv: [3 * WIDTH, WIDTH],
      joint_blocks_0_context_block_adaLN_modulation_1: [6 * WIDTH, WIDTH],
      joint_blocks_1_context_block_adaLN_modulation_1: [2 * WIDTH, WIDTH],
      joint_blocks_1_x_block_mlp_fc2: [WIDTH, 4 * WIDTH],
    }),
    async (original) => {
      const split = await inDiffusersScheme(original);
      assertEquals(
        [...split.modules.keys()].map((name) => name.replace("transformer.transformer_blocks.", "")),
        [
          "0.attn.to_k",
          "0.attn.to_q",
          "0.attn.to_v",
          "0.norm1_context.linear",
          "1.ff.net.2",
          "1.norm1_context.linear",
        ],
      );
      const last = await delta(original, "joint_blocks.1.context_block.adaLN_modulation.1");
      assertEquals(await delta(split, "transformer_blocks.1.norm1_context.linear"), [
        ...last.slice(last.length / 2),
        ...last.slice(0, last.length / 2),
      ]);
      assertEquals(
        await delta(split, "transformer_blocks.0.norm1_context.linear"),
        await delta(original, "joint_blocks.0.context_block.adaLN_modulation.1"),
      );
    },
  ));

Deno.test("inDiffusersScheme() renames Wan, and U-Nets in the original numbering of Stable Diffusion", async () => {
  await withFile(
    pairs({ blocks_0_self_attn_o: [4, 4], blocks_0_cross_attn_k_img: [4, 4], blocks_0_ffn_0: [8, 4] }),
    async (wan) => {
      assertEquals([...(await inDiffusersScheme(wan)).modules.keys()], [
        "transformer.blocks.0.attn1.to_out.0",
        "transformer.blocks.0.attn2.add_k_proj",
        "transformer.blocks.0.ffn.net.0.proj",
      ]);
    },
  );
  const unet = {
    input_blocks_1_0_in_layers_2: "down_blocks.0.resnets.0.conv1",
    input_blocks_3_0_op: "down_blocks.0.downsamplers.0.conv",
    input_blocks_4_0_skip_connection: "down_blocks.1.resnets.0.conv_shortcut",
    input_blocks_4_1_transformer_blocks_0_attn1_to_q:
      "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    input_blocks_8_1_proj_in: "down_blocks.2.attentions.1.proj_in",
    middle_block_0_out_layers_3: "mid_block.resnets.0.conv2",
    middle_block_1_proj_out: "mid_block.attentions.0.proj_out",
    output_blocks_2_1_conv: "up_blocks.0.upsamplers.0.conv",
    output_blocks_5_0_emb_layers_1: "up_blocks.1.resnets.2.time_emb_proj",
    output_blocks_5_1_proj_in: "up_blocks.1.attentions.2.proj_in",
    time_embed_0: "time_embedding.linear_1",
    label_emb_0_2: "add_embedding.linear_2",
  };
  await withFile(
    pairs(Object.fromEntries(Object.keys(unet).map((key) => [key, [4, 4]]))),
    async (adapter) => {
      const renamed = await inDiffusersScheme(adapter);
      assertEquals([...renamed.modules.keys()], Object.values(unet).map((name) => `unet.${name}`).sort());
    },
  );
});

Deno.test("inDiffusersScheme() and inOriginalScheme() refuse names that no rule knows", async () => {
  await withFile(
    pairs({ double_blocks_0_img_attn_qkv: [12, 4], double_blocks_0_img_mlp_fc1: [4, 4] }),
    async (adapter) => {
      const error = await assertRefused(() => inDiffusersScheme(adapter), "no_diffusers_name");
      assertStringIncludes(error.fix, "--drop");
    },
  );
  await withFile({
    "transformer.single_transformer_blocks.0.proj_out.lora_A.weight": random(1, 2, 4),
    "transformer.single_transformer_blocks.0.proj_out.lora_B.weight": random(2, 4, 2),
    "transformer.strange.lora_A.weight": random(1, 2, 4),
    "transformer.strange.lora_B.weight": random(2, 4, 2),
  }, async (adapter) => {
    const error = await assertRefused(() => inOriginalScheme(adapter), "no_original_name");
    assertStringIncludes(error.message, "transformer.strange");
  });
});

Deno.test("inDiffusersScheme() and inOriginalScheme() return adapters as they are that need no change", () =>
  withFile(pairs({ down_blocks_0_attentions_0_proj_in: [4, 4] }), async (adapter) => {
    assert(await inDiffusersScheme(adapter) === adapter);
    assert(await inOriginalScheme(adapter) === adapter);
  }));
