import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { createAdapterWriter } from "../../create_adapter_writer.ts";
import { openAdapter } from "../../open_adapter.ts";
import {
  assertClose,
  assertFileRefused,
  denseDelta,
  inTemporaryFolder,
  random,
  type RawTensor,
  scalar,
  withFile,
  zeros,
} from "../../test_support.ts";

const ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";

/** The two factors of a module under the endings of one age. */
function pair(front: string, down: string, up: string, rank = 2): Record<string, RawTensor> {
  return { [`${front}${down}`]: random(1, rank, 3), [`${front}${up}`]: random(2, 4, rank) };
}

const NEW = [".lora_A.weight", ".lora_B.weight"] as const;

/** Keys of every age, and the module that they name. */
const NAMES: readonly (readonly [front: string, down: string, up: string, name: string])[] = [
  [`unet.${ATTENTION}.processor.to_k`, "_lora.down.weight", "_lora.up.weight", `unet.${ATTENTION}.to_k`],
  [`${ATTENTION}.processor.to_out`, "_lora.down.weight", "_lora.up.weight", `unet.${ATTENTION}.to_out.0`],
  [`unet.${ATTENTION}.to_k`, ".lora.down.weight", ".lora.up.weight", `unet.${ATTENTION}.to_k`],
  [`unet.${ATTENTION}.to_out.0`, ...NEW, `unet.${ATTENTION}.to_out.0`],
  [
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    ".lora_linear_layer.down.weight",
    ".lora_linear_layer.up.weight",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
  ],
  ["transformer.transformer_blocks.0.attn.to_q", ...NEW, "transformer.transformer_blocks.0.attn.to_q"],
  [
    "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
    ...NEW,
    "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
  ],
  ["transformer.x.to_q", ".lora_A.default.weight", ".lora_B.default.weight", "transformer.x.to_q"],
];
for (const [front, down, up, name] of NAMES) {
  Deno.test(`openAdapter() takes diffusers' ${front}${down} for ${name}`, () =>
    withFile(pair(front, down, up), (adapter) => {
      assertEquals([adapter.format, ...adapter.modules.keys()], ["diffusers", name]);
      const { scale, keys } = adapter.modules.get(name)!;
      assertEquals([scale, keys?.a, keys?.b], [1, front + down, front + up]);
    }));
}

Deno.test("openAdapter() takes alpha of a diffusers file from a side tensor, for each module by itself", () =>
  withFile({
    ...pair("unet.x.to_q", ...NEW),
    "unet.x.to_q.alpha": scalar(1),
    ...pair("unet.x.to_k", ...NEW, 3),
    ...pair("unet.x.processor.to_v", "_lora.down.weight", "_lora.up.weight"),
    "unet.x.processor.to_v_lora.alpha": scalar(6),
  }, (adapter) => {
    assertEquals([...adapter.modules.values()].map(({ name, rank, scale }) => [name, rank, scale]), [
      ["unet.x.to_k", 3, 1],
      ["unet.x.to_q", 2, 0.5],
      ["unet.x.to_v", 2, 3],
    ]);
  }));

const CONFIG = {
  "unet.r": 2,
  "unet.lora_alpha": 4,
  "unet.rank_pattern": { to_k: 3 },
  "unet.alpha_pattern": { to_k: 1 },
  "text_encoder.r": 2,
  "text_encoder.lora_alpha": 2,
  "text_encoder.use_rslora": true,
};
const withConfig = (config: Record<string, unknown>) => ({
  metadata: { lora_adapter_metadata: JSON.stringify(config) },
});

Deno.test("openAdapter() takes alpha of a diffusers file from each component's configuration in the metadata", () =>
  withFile({
    ...pair("unet.x.to_q", ...NEW),
    ...pair("unet.x.to_k", ...NEW, 3),
    ...pair("text_encoder.y.q_proj", ...NEW),
    ...pair("transformer.z.to_q", ...NEW),
  }, (adapter) => {
    assertEquals([...adapter.modules.values()].map(({ name, scale }) => [name, scale]), [
      ["text_encoder.y.q_proj", 2 / Math.sqrt(2)],
      ["transformer.z.to_q", 1],
      ["unet.x.to_k", 1 / 3],
      ["unet.x.to_q", 2],
    ]);
  }, withConfig(CONFIG)));

const REFUSED: readonly (readonly [what: string, code: string, config: unknown, where: string])[] = [
  ["contradicts the ranks", "rank_mismatch", { "unet.r": 8 }, "rank 2"],
  ["asks for DoRA", "unsupported_config", { "unet.r": 2, "unet.use_dora": true }, "use_dora"],
  ["has alpha 0", "alpha_zero", { "unet.lora_alpha": 0 }, "lora_alpha"],
  ["is no object", "config_invalid", [1], "lora_adapter_metadata"],
];
for (const [what, code, config, where] of REFUSED) {
  Deno.test(`openAdapter() answers ${code} when the metadata of a diffusers file ${what}`, async () => {
    const tensors = pair("unet.x.to_q", ...NEW);
    const error = await assertFileRefused(code, tensors, withConfig(config as Record<string, unknown>));
    assertStringIncludes(`${error.where} ${error.message}`, where);
  });
}

Deno.test("openAdapter() answers config_invalid when the metadata of a diffusers file are no JSON", async () => {
  const metadata = { lora_adapter_metadata: "{" };
  await assertFileRefused("config_invalid", pair("unet.x.to_q", ...NEW), { metadata });
});

Deno.test("openAdapter() refuses xlabs' keys, whose names are of no layout that is known", async () => {
  const tensors = {
    "double_blocks.0.processor.qkv_lora1.down.weight": zeros(2, 3),
    "double_blocks.0.processor.qkv_lora1.up.weight": zeros(3, 2),
  };
  const error = await assertFileRefused("foreign_key", tensors);
  assertStringIncludes(error.message, "qkv_lora1");
});

Deno.test("createAdapterWriter() gives diffusers files one rank for each component, and its configuration", () =>
  inTemporaryFolder(async (folder) => {
    const modules = [
      { name: "unet.a.to_q", inFeatures: 3, outFeatures: 4, rank: 1, scale: 3 },
      { name: "unet.a.to_k", inFeatures: 3, outFeatures: 4, rank: 2 },
      { name: "text_encoder.b", inFeatures: 3, outFeatures: 4, rank: 4 },
      { name: "up_blocks.0.c", inFeatures: 3, outFeatures: 4, rank: 1 },
    ];
    const file = join(folder, "out.safetensors");
    const writer = await createAdapterWriter("diffusers", file, { modules, rank: 4, dtype: "float32" });
    const factors = new Map(modules.map(({ name, rank }, seed) => [
      name,
      {
        a: new Float32Array(random(seed, rank, 3).values),
        b: new Float32Array(random(seed + 9, 4, rank).values),
      },
    ]));
    for (const [name, { a, b }] of factors) await writer.write(name, a, b);
    await writer.finish();
    using adapter = await openAdapter(file);
    assertEquals([...adapter.modules.values()].map(({ name, rank, scale }) => [name, rank, scale]), [
      ["text_encoder.b", 4, 1],
      ["unet.a.to_k", 2, 1],
      ["unet.a.to_q", 2, 1],
      ["unet.up_blocks.0.c", 2, 1],
    ]);
    const { a, b } = factors.get("unet.a.to_q")!;
    const expected = Array.from({ length: 12 }, (_, i) => 3 * b[Math.floor(i / 3)]! * a[i % 3]!);
    assertClose(await denseDelta(adapter.modules.get("unet.a.to_q")!), expected, 1e-6);
    const config = JSON.parse(adapter.metadata["lora_adapter_metadata"]!);
    assertEquals(
      [config["unet.r"], config["unet.lora_alpha"], config["text_encoder.r"], config["unet.target_modules"]],
      [2, 2, 4, ["c", "to_k", "to_q"]],
    );
  }));
