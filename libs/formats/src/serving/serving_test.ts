import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { convertAdapter } from "../convert/convert.ts";
import type { OutputFormat } from "../create_adapter_writer.ts";
import { openAdapter } from "../open_adapter.ts";
import {
  factors,
  inTemporaryFolder,
  random,
  type RawTensor,
  REPOSITORY,
  withFile,
  writePeftFolder,
  zeros,
} from "../test_support.ts";
import { type Engine, ENGINES, servingReport } from "./report.ts";

const Q = "model.layers.0.q_proj";
const V = "model.layers.0.v_proj";

/** The report of a PEFT folder. */
async function reportOf(
  config: Record<string, unknown>,
  tensors: Record<string, RawTensor>,
  drop: string[] = [],
) {
  let report: ReturnType<typeof servingReport> | undefined;
  await inTemporaryFolder(async (folder) => {
    using adapter = await openAdapter(await writePeftFolder(join(folder, "a"), config, tensors), { drop });
    report = servingReport(adapter);
  });
  return report!;
}

/** Which engines take a converted example adapter. */
const TAKEN: Readonly<Record<OutputFormat, readonly Engine[]>> = {
  peft: ["vllm", "llama_cpp", "lorax"],
  gguf: ["llama_cpp"],
  mlx: ["mlx"],
  kohya: [],
  original: [],
  diffusers: ["diffusers", "comfyui"],
};
for (const [to, taken] of Object.entries(TAKEN) as [OutputFormat, Engine[]][]) {
  Deno.test(`servingReport() says of a language model's ${to} adapter that ${taken.join(", ") || "none"} loads it`, () =>
    inTemporaryFolder(async (folder) => {
      const output = join(folder, "out");
      const base = join(REPOSITORY, "examples/tiny-llama/base");
      await convertAdapter(join(REPOSITORY, "examples/tiny-llama/adapters/language"), output, { to, base });
      using adapter = await openAdapter(output);
      const report = servingReport(adapter);
      assertEquals(ENGINES.filter((engine) => report[engine].ok).sort(), [...taken].sort());
      for (const { ok, reasons } of Object.values(report)) assertEquals(ok, reasons.length === 0);
    }));
}

const UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
Deno.test("servingReport() says of an image model's kohya file that ComfyUI and diffusers load it", () =>
  withFile({
    [`${UNET}.lora_down.weight`]: zeros(2, 3),
    [`${UNET}.lora_up.weight`]: zeros(3, 2),
  }, (adapter) => {
    const report = servingReport(adapter);
    assertEquals(ENGINES.filter((engine) => report[engine].ok), ["comfyui", "diffusers"]);
    assertEquals(report.vllm.reasons, ["it adapts an image or video model"]);
  }));

Deno.test("servingReport() knows that ComfyUI does not know the newest names of diffusers' U-Nets", () =>
  withFile({
    "unet.x.to_q.lora_A.weight": zeros(2, 3),
    "unet.x.to_q.lora_B.weight": zeros(3, 2),
    "unet.x.to_k.lora_A.weight": zeros(4, 3),
    "unet.x.to_k.lora_B.weight": zeros(3, 4),
  }, (adapter) => {
    const { comfyui, diffusers } = servingReport(adapter);
    assertEquals([comfyui.ok, diffusers.ok], [false, true]);
    assertStringIncludes(comfyui.reasons.join(), "--to kohya");
    assertStringIncludes(diffusers.notes.join(), "different ranks");
  }));

type Case = readonly [
  what: string,
  config: Record<string, unknown>,
  tensors: Record<string, RawTensor>,
  refusing: readonly Engine[],
  reason: string,
];
const CASES: readonly Case[] = [
  ["different ranks", { r: 2, rank_pattern: { v_proj: 4 } }, {
    ...factors(Q, 2, 3, 3),
    ...factors(V, 4, 3, 3),
  }, [
    "vllm",
    "lorax",
  ], "different ranks"],
  ["different alphas", { r: 2, alpha_pattern: { v_proj: 3 } }, {
    ...factors(Q, 2, 3, 3),
    ...factors(V, 2, 3, 3),
  }, [
    "vllm",
    "llama_cpp",
    "lorax",
  ], "different alphas"],
  ["rank stabilisation", { r: 2, use_rslora: true }, factors(Q, 2, 3, 3), ["llama_cpp"], "use_rslora"],
  ["a rank beyond vLLM's", { r: 600 }, factors(Q, 600, 3, 3), ["vllm"], "512"],
  [
    "saved modules",
    { r: 2, modules_to_save: ["score"] },
    factors(Q, 2, 3, 3),
    ["vllm", "llama_cpp", "lorax"],
    "modules_to_save",
  ],
  ["biases", { r: 2, bias: "all" }, factors(Q, 2, 3, 3), ["vllm", "lorax"], "biases"],
  [
    "convolutions",
    { r: 2 },
    {
      [`base_model.model.${Q}.lora_A.weight`]: random(1, 2, 3, 3),
      [`base_model.model.${Q}.lora_B.weight`]: random(2, 3, 2, 1),
    },
    ["vllm", "llama_cpp", "lorax"],
    "convolutions",
  ],
];
for (const [what, config, tensors, refusing, reason] of CASES) {
  Deno.test(`servingReport() says that ${refusing.join(", ")} do not take ${what} of PEFT`, async () => {
    const report = await reportOf(config, tensors, ["modules_to_save", "bias"]);
    for (const engine of ["vllm", "llama_cpp", "lorax"] as const) {
      assertEquals(report[engine].ok, !refusing.includes(engine), `${engine}: ${report[engine].reasons}`);
      if (refusing.includes(engine)) assertStringIncludes(report[engine].reasons.join(), reason);
    }
  });
}

Deno.test("servingReport() names the rank that vLLM's server must be started with", async () => {
  const report = await reportOf({ r: 20 }, factors(Q, 20, 3, 3));
  assertStringIncludes(report.vllm.notes.join(), "--max-lora-rank 32");
});
