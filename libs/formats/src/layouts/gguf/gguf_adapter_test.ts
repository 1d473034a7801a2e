import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Adapter } from "../../adapter.ts";
import type { BaseModel } from "../../base/base_model.ts";
import { createAdapterWriter } from "../../create_adapter_writer.ts";
import { type Field, float32, float32File, type RawGgufTensor, text } from "../../gguf/bytes_for_tests.ts";
import { openAdapter } from "../../open_adapter.ts";
import { assertClose, assertRefused, denseDelta, inTemporaryFolder, random } from "../../test_support.ts";
import { interleavedRow, splitHalfRow } from "./heads.ts";

const BASE: BaseModel = {
  name: "base",
  modelType: "llama",
  headCount: 2,
  keyValueHeadCount: 1,
  moduleNames: [],
};
const header = (alpha = 0, architecture = "llama"): Field[][] => [
  text("general.architecture", architecture),
  text("general.type", "adapter"),
  text("adapter.type", "lora"),
  float32("adapter.lora.alpha", alpha),
];
const named = (name: string, seed: number, ...shape: number[]): RawGgufTensor => ({
  name,
  ...random(seed, ...shape),
});
const pair = (name: string): RawGgufTensor[] => [
  named(`${name}.weight.lora_a`, 1, 2, 3),
  named(`${name}.weight.lora_b`, 2, 8, 2),
];

function withGguf(
  values: Field[][],
  tensors: readonly RawGgufTensor[],
  check: (adapter: Adapter) => void | Promise<void>,
  base?: BaseModel,
  drop: readonly string[] = [],
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const path = join(folder, "x.gguf");
    await Deno.writeFile(path, float32File(values, tensors));
    using adapter = await openAdapter(path, { base, drop });
    await check(adapter);
  });
}

/** llama.cpp's names of every architecture that is known, and Hugging Face's. */
const NAMES: readonly (readonly [architecture: string, gguf: string, name: string])[] = [
  ["llama", "blk.0.attn_v", "model.layers.0.self_attn.v_proj"],
  ["llama", "blk.11.attn_output", "model.layers.11.self_attn.o_proj"],
  ["llama", "blk.0.ffn_gate", "model.layers.0.mlp.gate_proj"],
  ["granite", "blk.0.ffn_up", "model.layers.0.mlp.up_proj"],
  ["qwen2", "blk.0.attn_q", "model.layers.0.self_attn.q_proj"],
  ["qwen3", "blk.0.attn_k", "model.layers.0.self_attn.k_proj"],
  ["gemma", "blk.0.ffn_down", "model.layers.0.mlp.down_proj"],
  ["gemma2", "blk.0.ffn_down", "model.layers.0.mlp.down_proj"],
  ["gemma3", "output", "lm_head"],
  ["phi3", "blk.0.attn_qkv", "model.layers.0.self_attn.qkv_proj"],
  ["phi3", "blk.0.ffn_up", "model.layers.0.mlp.gate_up_proj"],
];
for (const [architecture, gguf, name] of NAMES) {
  Deno.test(`openAdapter() takes ${gguf} of ${architecture} for ${name}, as createAdapterWriter() writes it`, () =>
    withGguf(header(0, architecture), pair(gguf), async (adapter) => {
      assertEquals([adapter.format, ...adapter.modules.keys()], ["gguf", name]);
      await inTemporaryFolder(async (folder) => {
        const path = join(folder, "out.gguf");
        const modules = [{ name, inFeatures: 3, outFeatures: 8 }];
        const base = { ...BASE, modelType: architecture };
        const writer = await createAdapterWriter("gguf", path, { modules, rank: 2, dtype: "float32", base });
        await writer.write(name, new Float32Array(6), new Float32Array(16));
        await writer.finish();
        using written = await openAdapter(path);
        assertEquals(written.modules.get(name)!.a.name, `${gguf}.weight.lora_a`);
      });
    }));
}

for (const [alpha, scale] of [[0, 1], [2, 1], [3, 1.5]] as const) {
  Deno.test(`openAdapter() reads GGUF's alpha ${alpha} at rank 2 as the scale ${scale}`, () =>
    withGguf(header(alpha), pair("blk.0.attn_v"), async (adapter) => {
      const module = adapter.modules.get("model.layers.0.self_attn.v_proj")!;
      assertEquals(module.scale, scale);
      const [a, b] = [random(1, 2, 3).values, random(2, 8, 2).values];
      const expected = Array.from({ length: 24 }, (_, at) => {
        const [o, i] = [Math.floor(at / 3), at % 3];
        return scale * (b[2 * o]! * a[i]! + b[2 * o + 1]! * a[3 + i]!);
      });
      assertClose(await denseDelta(module), expected, 1e-15);
    }));
}

Deno.test("openAdapter() brings the rows of Llama's Q and K back into Hugging Face's order", async () => {
  // Two heads of four rows: llama.cpp has each head's rows as 0, 2, 1, 3.
  const order = { q: [0, 2, 1, 3, 4, 6, 5, 7], k: [0, 4, 1, 5, 2, 6, 3, 7] };
  for (const [part, rows] of Object.entries(order)) {
    await withGguf(header(), pair(`blk.0.attn_${part}`), async (adapter) => {
      const b = await adapter.modules.get(`model.layers.0.self_attn.${part}_proj`)!.b.readFloat32();
      const stored = random(2, 8, 2).values;
      rows.forEach((original, row) => {
        assertEquals([b[2 * original], b[2 * original + 1]], [stored[2 * row], stored[2 * row + 1]]);
      });
    }, BASE);
  }
});

Deno.test("interleavedRow() and splitHalfRow() are inverse permutations", () => {
  for (const [rows, heads] of [[8, 1], [8, 2], [192, 3], [24, 12]] as const) {
    const all = Array.from({ length: rows }, (_, row) => row);
    assertEquals(all.map((row) => interleavedRow(splitHalfRow(row, rows, heads), rows, heads)), all);
    assertEquals(all.map((row) => interleavedRow(row, rows, heads)).sort((x, y) => x - y), all);
  }
});

Deno.test("openAdapter() reads llama.cpp's embedding LoRA: Δ = lora_a·lora_bᵀ with lora_a [vocabulary, r]", () =>
  withGguf(header(), [
    named("token_embd.weight.lora_a", 1, 5, 2),
    named("token_embd.weight.lora_b", 2, 3, 2),
  ], async (adapter) => {
    const module = adapter.modules.get("model.embed_tokens")!;
    assertEquals([module.form?.kind, module.inFeatures, module.outFeatures], ["embedding", 3, 5]);
    const [a, b] = [random(1, 5, 2).values, random(2, 3, 2).values];
    const expected = Array.from({ length: 15 }, (_, at) => {
      const [token, i] = [Math.floor(at / 3), at % 3];
      return a[2 * token]! * b[2 * i]! + a[2 * token + 1]! * b[2 * i + 1]!;
    });
    assertClose(await denseDelta(module), expected, 1e-15);
  }));

const SCALES = { ...pair("blk.0.attn_v")[0]!, name: "blk.0.attn_norm.weight" };
type Case = readonly [
  what: string,
  code: string,
  values: Field[][],
  tensors: readonly RawGgufTensor[],
  fix: string,
  base?: BaseModel,
];
const V = pair("blk.0.attn_v");
const REFUSED: readonly Case[] = [
  ["it is a model", "not_an_adapter", [text("general.type", "model")], V, "convert_lora_to_gguf.py"],
  ["it is no LoRA", "not_an_adapter", [text("general.type", "adapter")], V, "convert_lora_to_gguf.py"],
  ["alpha is missing", "config_invalid", header().slice(0, 3), V, "again"],
  ["the architecture is unknown", "architecture_unsupported", header(0, "mamba"), V, "--to peft"],
  [
    "it is an aLoRA",
    "unsupported_config",
    [
      ...header(),
      ["adapter.alora.invocation_tokens", 9, 4, 1n, 5],
    ],
    V,
    "Leave the adapter out",
  ],
  ["the heads are unknown", "heads_unknown", header(), pair("blk.0.attn_q"), "--base DIR"],
  ["the heads do not fit", "shape_mismatch", header(), pair("blk.0.attn_q"), "--base", {
    ...BASE,
    headCount: 3,
  }],
  ["a norm stands there", "unsupported_tensor", header(), [...V, SCALES], "--drop"],
  ["an ending is another", "foreign_key", header(), [...V, { ...SCALES, name: "blk.0.x.weight" }], "--drop"],
  ["a module is unknown", "foreign_key", header(), pair("blk.0.ssm_in"), "--drop"],
  ["lora_b is missing", "incomplete_pair", header(), V.slice(0, 1), "incomplete"],
  ["lora_a is missing", "incomplete_pair", header(), V.slice(1), "incomplete"],
  ["the ranks differ", "shape_mismatch", header(), [V[0]!, { ...V[1]!, ...random(1, 4, 4) }], "damaged"],
  ["experts are adapted", "unsupported_tensor", header(), [
    named("blk.0.ffn_up.weight.lora_a", 1, 2, 3, 4),
    named("blk.0.ffn_up.weight.lora_b", 2, 5, 2, 1),
  ], "--drop"],
  ["there are no tensors", "no_modules", header(), [], "adapter"],
];
for (const [what, code, values, tensors, fix, base] of REFUSED) {
  Deno.test(`openAdapter() answers ${code} when ${what} in a GGUF file`, () =>
    inTemporaryFolder(async (folder) => {
      const path = join(folder, "x.gguf");
      await Deno.writeFile(path, float32File(values, tensors));
      assertStringIncludes((await assertRefused(() => openAdapter(path, { base }), code)).fix, fix);
    }));
}

Deno.test("openAdapter() drops norms and unknown modules of a GGUF file on request", () =>
  withGguf(
    header(),
    [...V, SCALES, ...pair("blk.0.ssm_in")],
    (adapter) => {
      assertEquals([adapter.modules.size, adapter.warnings.length], [1, 3]);
    },
    undefined,
    ["*_norm.weight", "blk.0.ssm_in"],
  ));

const MODULE = { name: "model.layers.0.self_attn.q_proj", inFeatures: 3, outFeatures: 8 };
const UNWRITABLE: readonly (readonly [
  what: string,
  code: string,
  module: object,
  base: BaseModel | undefined,
  fix: string,
])[] = [
  ["the base is unknown", "architecture_unknown", {}, undefined, "--base DIR"],
  [
    "the base's type is unknown here",
    "architecture_unsupported",
    {},
    { ...BASE, modelType: "mamba" },
    "--to peft",
  ],
  [
    "the base has no heads",
    "heads_unknown",
    {},
    { name: "x", modelType: "llama", moduleNames: [] },
    "--base DIR",
  ],
  ["the rows are not of so many heads", "shape_mismatch", {}, { ...BASE, headCount: 3 }, "--base"],
  ["a module has no name", "module_unsupported", { name: "model.layers.0.strange" }, BASE, "--drop"],
];
for (const [what, code, module, base, fix] of UNWRITABLE) {
  Deno.test(`createAdapterWriter() answers ${code} when ${what} for GGUF`, () =>
    inTemporaryFolder(async (folder) => {
      const modules = [{ ...MODULE, ...module }];
      const error = await assertRefused(
        () =>
          createAdapterWriter("gguf", join(folder, "x.gguf"), { modules, rank: 2, dtype: "float32", base }),
        code,
      );
      assertStringIncludes(error.fix, fix);
    }));
}

Deno.test("createAdapterWriter() writes the heads that it used, so that the file is read back without the base", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "x.gguf");
    const spec = { modules: [MODULE], rank: 2, dtype: "float32", base: BASE } as const;
    const writer = await createAdapterWriter("gguf", path, spec);
    const [a, b] = [random(1, 2, 3).values, random(2, 8, 2).values].map((values) => new Float32Array(values));
    await writer.write(MODULE.name, a!, b!);
    await writer.finish();
    using adapter = await openAdapter(path);
    assertEquals(await adapter.modules.get(MODULE.name)!.b.readFloat32(), b);
  }));
