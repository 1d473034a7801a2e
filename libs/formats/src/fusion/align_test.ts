import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Adapter } from "../adapter.ts";
import { openAdapter } from "../open_adapter.ts";
import {
  assertRefused,
  denseDelta,
  inTemporaryFolder,
  random,
  rawFloat32File,
  type RawTensor,
  writePeftFolder,
} from "../test_support.ts";
import { alignAdapters } from "./align.ts";

type Shapes = Record<string, readonly [outFeatures: number, ...inFeatures: number[]]>;

const peft = (shapes: Shapes): Record<string, RawTensor> =>
  Object.fromEntries(
    Object.entries(shapes).flatMap(([name, [outFeatures, ...rest]], i) => [
      [`base_model.model.${name}.lora_A.weight`, random(2 * i, 2, ...rest)],
      [
        `base_model.model.${name}.lora_B.weight`,
        random(
          2 * i + 1,
          outFeatures,
          2,
          ...rest.slice(1).map(() => 1),
        ),
      ],
    ]),
  );
const kohya = (shapes: Shapes): Record<string, RawTensor> =>
  Object.fromEntries(
    Object.entries(shapes).flatMap(([key, [outFeatures, ...rest]], i) => [
      [`${key}.lora_down.weight`, random(2 * i + 50, 2, ...rest)],
      [`${key}.lora_up.weight`, random(2 * i + 51, outFeatures, 2, ...rest.slice(1).map(() => 1))],
    ]),
  );

/** Opens adapters made of these tensors, those of PEFT as folders, and closes them afterwards. */
function withAdapters(
  files: readonly Record<string, RawTensor>[],
  check: (adapters: Adapter[]) => Promise<void>,
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const adapters: Adapter[] = [];
    for (const [i, tensors] of files.entries()) {
      const isPeft = Object.keys(tensors)[0]!.startsWith("base_model.");
      const path = join(folder, isPeft ? `${i}` : `${i}.safetensors`);
      if (isPeft) await writePeftFolder(path, { r: 2, lora_alpha: 2 }, tensors);
      else await Deno.writeFile(path, rawFloat32File(tensors));
      adapters.push(await openAdapter(path));
    }
    await check(adapters);
    for (const adapter of adapters) adapter.close();
  });
}

const names = ({ modules }: Adapter) => [...modules.keys()];

Deno.test("alignAdapters() returns adapters that agree as they are", () =>
  withAdapters(
    [peft({ "model.layers.0.q_proj": [4, 3] }), peft({ "model.layers.1.q_proj": [4, 3] })],
    async (adapters) => {
      const aligned = await alignAdapters(adapters);
      assert(aligned.every((adapter, i) => adapter === adapters[i]));
    },
  ));

/** Two names of one module in different versions or wrappers of a model. */
const EQUAL_NAMES = [
  ["model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.q_proj"],
  ["model.layers.0.self_attn.q_proj", "language_model.model.layers.0.self_attn.q_proj"],
  ["model.layers.0.self_attn.q_proj", "model.model.layers.0.self_attn.q_proj"],
  ["model.language_model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"],
  ["lm_head", "language_model.lm_head"],
] as const;
for (const [first, second] of EQUAL_NAMES) {
  Deno.test(`alignAdapters() takes ${second} for ${first}, and says so`, () =>
    withAdapters([peft({ [first]: [4, 3] }), peft({ [second]: [4, 3] })], async (adapters) => {
      const [left, right] = await alignAdapters(adapters);
      assertEquals([names(left!), names(right!)], [[first], [first]]);
      const [warning] = right!.warnings.filter(({ code }) => code === "names_aligned");
      assertStringIncludes(warning!.message, second);
      assertEquals(
        await denseDelta(right!.modules.get(first)!),
        await denseDelta(adapters[1]!.modules.get(second)!),
      );
    }));
}

Deno.test("alignAdapters() keeps modules apart whose names differ in more than a prefix", () =>
  withAdapters([
    peft({ "text_model.encoder.layers.0.mlp.fc1": [4, 3], "vision_model.encoder.layers.0.mlp.fc1": [4, 3] }),
    peft({ "model.visual.blocks.0.fc1": [4, 3], "model.layers.0.fc1": [4, 3] }),
  ], async (adapters) => {
    const aligned = await alignAdapters(adapters);
    assertEquals(aligned.map(names), adapters.map(names));
  }));

Deno.test("alignAdapters() joins a PEFT adapter of a U-Net with kohya and original names of it", () =>
  withAdapters([
    peft({ "down_blocks.1.attentions.0.proj_in": [4, 3] }),
    kohya({ lora_unet_down_blocks_1_attentions_0_proj_in: [4, 3] }),
    kohya({ lora_unet_input_blocks_4_1_proj_in: [4, 3] }),
  ], async (adapters) => {
    const aligned = await alignAdapters(adapters);
    assertEquals(aligned.map(names), Array(3).fill(["down_blocks.1.attentions.0.proj_in"]));
  }));

Deno.test("alignAdapters() splits a fused qkv_proj and gate_up_proj where another adapter has the parts", () =>
  withAdapters([
    peft({ "model.layers.0.self_attn.qkv_proj": [8, 3], "model.layers.0.mlp.gate_up_proj": [10, 3] }),
    peft({
      "model.layers.0.self_attn.q_proj": [4, 3],
      "model.layers.0.self_attn.v_proj": [2, 3],
      "model.layers.0.mlp.up_proj": [5, 3],
    }),
  ], async (adapters) => {
    const [left, right] = await alignAdapters(adapters);
    assertEquals(
      [...left!.modules.values()].map(({ name, outFeatures }) => [name.split(".").at(-1), outFeatures]),
      [
        ["gate_proj", 5],
        ["up_proj", 5],
        ["k_proj", 2],
        ["q_proj", 4],
        ["v_proj", 2],
      ],
    );
    assert(right === adapters[1]);
  }));

Deno.test("alignAdapters() finds the rows of Q where only K or V is known", () =>
  withAdapters([
    peft({ "model.layers.0.qkv_proj": [8, 3] }),
    peft({ "model.layers.0.k_proj": [2, 3] }),
  ], async (adapters) => {
    const [left] = await alignAdapters(adapters);
    assertEquals([...left!.modules.values()].map(({ outFeatures }) => outFeatures), [2, 4, 2]);
  }));

Deno.test("alignAdapters() answers cannot_split when the fused rows are not those of the parts", () =>
  withAdapters([
    peft({ "model.layers.0.gate_up_proj": [9, 3] }),
    peft({ "model.layers.0.up_proj": [10, 3] }),
  ], async (adapters) => {
    assertStringIncludes(
      (await assertRefused(() => alignAdapters(adapters), "cannot_split")).fix,
      "base model",
    );
  }));

Deno.test("alignAdapters() brings kohya's Flux into diffusers' names where another adapter has these", () =>
  withAdapters([
    kohya({ lora_unet_double_blocks_0_img_attn_qkv: [12, 4], lora_unet_single_blocks_0_linear2: [4, 20] }),
    kohya({ "transformer.transformer_blocks.0.attn.to_q": [4, 4] }),
  ], async (adapters) => {
    const [left, right] = await alignAdapters(adapters);
    assertEquals(names(left!), [
      "transformer.single_transformer_blocks.0.proj_out",
      "transformer.transformer_blocks.0.attn.to_k",
      "transformer.transformer_blocks.0.attn.to_q",
      "transformer.transformer_blocks.0.attn.to_v",
    ]);
    assert(right === adapters[1]);
  }));

Deno.test("alignAdapters() answers kernel_mismatch when two kernels of equal size differ in shape", () =>
  withAdapters([
    kohya({ lora_unet_conv_in: [4, 2, 1, 9] }),
    kohya({ lora_unet_conv_in: [4, 2, 3, 3] }),
  ], async (adapters) => {
    const error = await assertRefused(() => alignAdapters(adapters), "kernel_mismatch");
    assertStringIncludes(error.message, "1×9");
    assertStringIncludes(error.fix, "exclude");
  }));

Deno.test("alignAdapters() takes a convolution of kernel 1 for a linear module", () =>
  withAdapters([
    kohya({ lora_unet_mid_block_attentions_0_proj_in: [4, 2, 1, 1] }),
    kohya({ lora_unet_mid_block_attentions_0_proj_in: [4, 2] }),
  ], async (adapters) => {
    const aligned = await alignAdapters(adapters);
    assert(aligned.every((adapter, i) => adapter === adapters[i]));
  }));
