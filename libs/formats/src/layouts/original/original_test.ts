import { assertEquals } from "@std/assert";
import { assertFileRefused, random, type RawTensor, scalar, withFile, zeros } from "../../test_support.ts";

function pair(front: string, down = ".lora_A.weight", up = ".lora_B.weight"): Record<string, RawTensor> {
  return { [front + down]: random(1, 2, 3), [front + up]: random(2, 4, 2) };
}

const NAMES: readonly (readonly [front: string, name: string])[] = [
  ["diffusion_model.blocks.0.self_attn.q", "transformer.blocks.0.self_attn.q"],
  ["model.diffusion_model.double_blocks.0.img_attn.qkv", "transformer.double_blocks.0.img_attn.qkv"],
  ["diffusion_model.layers.0.attention.to_out.0", "transformer.layers.0.attention.to_out.0"],
  ["diffusion_model.input_blocks.4.1.proj_in", "unet.input_blocks.4.1.proj_in"],
  ["diffusion_model.anything.else", "transformer.anything.else"],
  ["transformer_blocks.0.attn.add_k_proj", "transformer.transformer_blocks.0.attn.add_k_proj"],
  ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"],
];
for (const [front, name] of NAMES) {
  Deno.test(`openAdapter() takes the original name ${front} for ${name}`, () =>
    withFile(
      pair(front),
      (adapter) => assertEquals([adapter.format, ...adapter.modules.keys()], ["original", name]),
    ));
}

Deno.test("openAdapter() takes kohya's endings and alphas behind names with dots, as in Qwen-Image files", () =>
  withFile({
    ...pair("transformer_blocks.0.attn.to_q", ".lora_down.weight", ".lora_up.weight"),
    "transformer_blocks.0.attn.to_q.alpha": scalar(1),
  }, (adapter) => {
    const { scale, keys } = adapter.modules.get("transformer.transformer_blocks.0.attn.to_q")!;
    assertEquals([scale, keys], [0.5, {
      a: "transformer_blocks.0.attn.to_q.lora_down.weight",
      b: "transformer_blocks.0.attn.to_q.lora_up.weight",
      alpha: "transformer_blocks.0.attn.to_q.alpha",
    }]);
  }));

Deno.test("openAdapter() does not take a model's own weights for an adapter", async () => {
  await assertFileRefused("unknown_layout", {
    "model.diffusion_model.input_blocks.0.0.weight": zeros(3, 3),
    "model.diffusion_model.input_blocks.0.0.bias": zeros(3),
  });
});
