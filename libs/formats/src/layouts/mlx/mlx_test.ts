import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Adapter } from "../../adapter.ts";
import { createAdapterWriter } from "../../create_adapter_writer.ts";
import { openAdapter } from "../../open_adapter.ts";
import {
  assertClose,
  assertRefused,
  denseDelta,
  inTemporaryFolder,
  random,
  rawFloat32File,
  type RawTensor,
  zeros,
} from "../../test_support.ts";

const Q = "model.layers.0.self_attn.q_proj";
const EMBEDDING = "model.embed_tokens";
const CONFIG = { fine_tune_type: "lora", num_layers: 4, lora_parameters: { rank: 2, scale: 3, dropout: 0 } };
const PAIR = { [`${Q}.lora_a`]: random(1, 3, 2), [`${Q}.lora_b`]: random(2, 2, 4) };

async function writeMlx(
  folder: string,
  config: unknown,
  tensors: Record<string, RawTensor>,
): Promise<string> {
  if (config !== undefined) {
    await Deno.writeTextFile(join(folder, "adapter_config.json"), JSON.stringify(config));
  }
  await Deno.writeFile(join(folder, "adapters.safetensors"), rawFloat32File(tensors));
  return folder;
}

function withMlx(
  config: unknown,
  tensors: Record<string, RawTensor>,
  check: (adapter: Adapter) => void | Promise<void>,
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    using adapter = await openAdapter(await writeMlx(folder, config, tensors));
    await check(adapter);
  });
}

Deno.test("openAdapter() reads MLX factors transposed, with the scale itself as the factor", () =>
  withMlx({ ...CONFIG, model: "org/base" }, PAIR, async (adapter) => {
    const module = adapter.modules.get(Q)!;
    const { rank, inFeatures, outFeatures, scale, alpha } = module;
    assertEquals([adapter.format, adapter.baseModel, rank, inFeatures, outFeatures, scale, alpha], [
      "mlx",
      "org/base",
      2,
      3,
      4,
      3,
      6,
    ]);
    // Δ[o, i] = scale · Σ_k lora_a[i, k] · lora_b[k, o]
    const [a, b] = [PAIR[`${Q}.lora_a`]!.values, PAIR[`${Q}.lora_b`]!.values];
    const expected = Array.from({ length: 12 }, (_, at) => {
      const [o, i] = [Math.floor(at / 3), at % 3];
      return 3 * (a[i * 2]! * b[o]! + a[i * 2 + 1]! * b[4 + o]!);
    });
    assertClose(await denseDelta(module), expected, 1e-14);
    const raw = new Float32Array((await module.a.readRows(1, 2)).buffer);
    assertEquals([...raw], [a[1], a[3], a[5]]);
  }));

Deno.test("openAdapter() reads an MLX embedding as the table's own ΔW = scale·a·b", () =>
  withMlx(CONFIG, {
    [`${EMBEDDING}.lora_a`]: random(1, 7, 2),
    [`${EMBEDDING}.lora_b`]: random(2, 2, 3),
  }, (adapter) => {
    const { form, inFeatures, outFeatures } = adapter.modules.get(EMBEDDING)!;
    assertEquals([form?.kind, inFeatures, outFeatures], ["embedding", 3, 7]);
  }));

Deno.test("openAdapter() takes mlx-lm's default scale of 20 where none is written, and says so", () =>
  withMlx({ ...CONFIG, lora_parameters: { rank: 2 } }, PAIR, (adapter) => {
    assertEquals([adapter.modules.get(Q)!.scale, adapter.warnings.map(({ code }) => code)], [20, [
      "scale_assumed",
    ]]);
  }));

type Case = readonly [
  what: string,
  code: string,
  config: unknown,
  tensors: Record<string, RawTensor>,
  fix: string,
];
const REFUSED: readonly Case[] = [
  ["there is no configuration", "config_missing", undefined, PAIR, "adapter_config.json"],
  ["the adapter is DoRA", "unsupported_config", { ...CONFIG, fine_tune_type: "dora" }, PAIR, "plain LoRA"],
  ["the model was tuned in full", "unsupported_config", { ...CONFIG, fine_tune_type: "full" }, PAIR, "plain"],
  [
    "a magnitude stands there",
    "unsupported_variant",
    CONFIG,
    { ...PAIR, [`${Q}.m`]: zeros(4) },
    "--drop dora",
  ],
  ["lora_parameters is missing", "config_invalid", { fine_tune_type: "lora" }, PAIR, "Correct"],
  ["the scale is a text", "config_invalid", { lora_parameters: { scale: "2" } }, PAIR, "Correct"],
  ["the scale is 0", "alpha_zero", { lora_parameters: { scale: 0 } }, PAIR, "Set alpha"],
  [
    "the rank contradicts the tensors",
    "rank_mismatch",
    { lora_parameters: { rank: 8, scale: 1 } },
    PAIR,
    "Restore",
  ],
  ["experts are adapted", "unsupported_tensor", CONFIG, {
    [`${Q}.lora_a`]: zeros(8, 2, 3),
    [`${Q}.lora_b`]: zeros(8, 4, 2),
  }, `--drop ${Q}`],
  ["a factor is missing", "incomplete_pair", CONFIG, { [`${Q}.lora_a`]: zeros(3, 2) }, "incomplete"],
  ["the other factor is missing", "incomplete_pair", CONFIG, { [`${Q}.lora_b`]: zeros(2, 3) }, "incomplete"],
  ["the ranks differ", "shape_mismatch", CONFIG, { ...PAIR, [`${Q}.lora_b`]: zeros(3, 4) }, "damaged"],
  ["a factor has one dimension", "shape_mismatch", CONFIG, { ...PAIR, [`${Q}.lora_b`]: zeros(4) }, "damaged"],
  ["another tensor is there", "foreign_key", CONFIG, { ...PAIR, "model.norm.weight": zeros(4) }, "--drop"],
  ["there are no tensors", "no_modules", CONFIG, {}, "adapter"],
];
for (const [what, code, config, tensors, fix] of REFUSED) {
  Deno.test(`openAdapter() answers ${code} when ${what} in an MLX folder`, () =>
    inTemporaryFolder(async (folder) => {
      const path = await writeMlx(folder, config, tensors);
      assertStringIncludes((await assertRefused(() => openAdapter(path), code)).fix, fix);
    }));
}

Deno.test("createAdapterWriter() keeps a common scale in MLX's configuration, and multiplies others into B", () =>
  inTemporaryFolder(async (folder) => {
    const module = { name: Q, inFeatures: 3, outFeatures: 4, rank: 2 };
    for (const [run, scales] of [[4, 4], [4, 5]].entries()) {
      const target = join(folder, String(run));
      await Deno.mkdir(target);
      const modules = scales.map((scale, i) => ({ ...module, name: `model.layers.${i}.mlp.up_proj`, scale }));
      const writer = await createAdapterWriter("mlx", target, { modules, rank: 2, dtype: "float32" });
      const [a, b] = [random(1, 2, 3).values, random(2, 4, 2).values].map((values) =>
        new Float32Array(values)
      );
      for (const { name } of modules) await writer.write(name, a!, b!);
      await writer.finish();
      const config = JSON.parse(await Deno.readTextFile(join(target, "adapter_config.json")));
      assertEquals(config, {
        fine_tune_type: "lora",
        lora_parameters: { dropout: 0, keys: ["mlp.up_proj"], rank: 2, scale: run === 0 ? 4 : 1 },
        model: null,
        num_layers: -1,
      });
      using adapter = await openAdapter(target);
      for (const [i, { name }] of modules.entries()) {
        const delta = await denseDelta(adapter.modules.get(name)!);
        const expected = Array.from({ length: 12 }, (_, at) => {
          const [o, j] = [Math.floor(at / 3), at % 3];
          return scales[i]! * (b![o * 2]! * a![j]! + b![o * 2 + 1]! * a![3 + j]!);
        });
        assertClose(delta, expected, 1e-7);
      }
    }
  }));
