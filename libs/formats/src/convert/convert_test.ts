import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Adapter, LoraModule } from "../adapter.ts";
import { readBaseModel } from "../base/base_model.ts";
import type { OutputFormat } from "../create_adapter_writer.ts";
import { openAdapter } from "../open_adapter.ts";
import {
  assertRefused,
  denseDelta,
  factors,
  inTemporaryFolder,
  random,
  rawFloat32File,
  REPOSITORY,
  writePeftFolder,
  zeros,
} from "../test_support.ts";
import { convertAdapter, type ConvertOptions } from "./convert.ts";

const BASE = join(REPOSITORY, "examples/tiny-llama/base");
const ADAPTER = join(REPOSITORY, "examples/tiny-llama/adapters/language");

async function assertEqualDeltas(found: Adapter, expected: Adapter): Promise<void> {
  assertEquals([...found.modules.keys()], [...expected.modules.keys()]);
  for (const [name, module] of found.modules) {
    const other = expected.modules.get(name)!;
    assertEquals(module.form, other.form);
    const [left, right] = [await denseDelta(module), await denseDelta(other)];
    assert(left.every((value, i) => value === right[i]), `${name} differs`);
  }
}

/** Converts through layouts one after the other and opens the last. */
async function convertThrough(
  folder: string,
  input: string,
  formats: readonly OutputFormat[],
  options: Partial<ConvertOptions> = {},
): Promise<string> {
  let path = input;
  for (const [step, to] of formats.entries()) {
    const output = join(folder, `${step}-${to}`);
    await convertAdapter(path, output, { to, ...options });
    path = output;
  }
  return path;
}

Deno.test("convertAdapter() keeps every ΔW exactly through PEFT, kohya, diffusers, MLX, GGUF and back", () =>
  inTemporaryFolder(async (folder) => {
    const formats: OutputFormat[] = ["kohya", "diffusers", "mlx", "gguf", "peft"];
    const path = await convertThrough(folder, ADAPTER, formats, { base: BASE });
    using found = await openAdapter(path);
    using expected = await openAdapter(ADAPTER);
    assertEquals(found.warnings, []);
    await assertEqualDeltas(found, expected);
  }));

for (const to of ["kohya", "diffusers", "mlx", "gguf", "original", "peft"] as const) {
  Deno.test(`convertAdapter() gives ${to} files that are read as ${to}, and equal bytes each time`, () =>
    inTemporaryFolder(async (folder) => {
      const digests: string[] = [];
      for (const run of ["one", "two"]) {
        const output = join(folder, run);
        const conversion = await convertAdapter(ADAPTER, output, { to, base: BASE });
        assertEquals([conversion.from, conversion.to, conversion.modules, conversion.rank], [
          "peft",
          to,
          28,
          8,
        ]);
        const base = await readBaseModel(BASE);
        using adapter = await openAdapter(output, { base });
        assertEquals([adapter.format, adapter.modules.size], [to, 28]);
        const bytes = await Deno.readFile(adapter.files.at(-1)!);
        digests.push(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toString());
        const names = (await Array.fromAsync(Deno.readDir(output))).map(({ name }) => name);
        assert(names.includes("README.md"));
      }
      assertEquals(digests[0], digests[1]);
    }));
}

const UNET = "unet.down_blocks.0.attentions.0.transformer_blocks.0";

Deno.test("convertAdapter() keeps convolutions, mixed ranks and scales through PEFT, kohya and diffusers", () =>
  inTemporaryFolder(async (folder) => {
    const key = (module: string, ending: string) => `lora_${module.replaceAll(".", "_")}.${ending}`;
    const conv = "unet.down_blocks.0.resnets.0.conv1";
    const one = "unet.down_blocks.0.attentions.0.proj_in";
    const linear = `${UNET}.attn1.to_q`;
    const file = join(folder, "in.safetensors");
    await Deno.writeFile(
      file,
      rawFloat32File({
        [key(conv, "lora_down.weight")]: random(1, 2, 3, 3, 3),
        [key(conv, "lora_up.weight")]: random(2, 5, 2, 1, 1),
        [key(conv, "alpha")]: { shape: [], values: [1] },
        [key(one, "lora_down.weight")]: random(3, 4, 6, 1, 1),
        [key(one, "lora_up.weight")]: random(4, 6, 4, 1, 1),
        [key(one, "alpha")]: { shape: [1], values: [8] },
        [key(linear, "lora_down.weight")]: random(5, 1, 7),
        [key(linear, "lora_up.weight")]: random(6, 4, 1),
      }),
    );
    using expected = await openAdapter(file);
    assertEquals(
      [...expected.modules.values()].map(({ name, rank, scale, form }) => [name, rank, scale, form]),
      [
        [one, 4, 2, { kind: "conv", kernel: [1, 1] }],
        [linear, 1, 1, { kind: "linear" }],
        [conv, 2, 0.5, { kind: "conv", kernel: [3, 3] }],
      ],
    );
    for (const formats of [["kohya"], ["diffusers"], ["diffusers", "peft", "kohya"]] as const) {
      const path = await convertThrough(await Deno.makeTempDir({ dir: folder }), file, formats);
      using found = await openAdapter(path);
      await assertEqualDeltas(found, expected);
    }
  }));

Deno.test("convertAdapter() writes U-Nets as original only where they have original names", () =>
  inTemporaryFolder(async (folder) => {
    for (const name of ["input_blocks_4_1_proj_in", "down_blocks_1_attentions_0_proj_in"]) {
      const file = join(folder, `${name}.safetensors`);
      await Deno.writeFile(
        file,
        rawFloat32File({
          [`lora_unet_${name}.lora_down.weight`]: random(1, 2, 3),
          [`lora_unet_${name}.lora_up.weight`]: random(2, 3, 2),
        }),
      );
    }
    const output = join(folder, "out.safetensors");
    await convertAdapter(join(folder, "input_blocks_4_1_proj_in.safetensors"), output, { to: "original" });
    using adapter = await openAdapter(output);
    const [{ a }] = [...adapter.modules.values()] as [LoraModule];
    assertEquals(a.name, "diffusion_model.input_blocks.4.1.proj_in.lora_A.weight");
    const other = join(folder, "down_blocks_1_attentions_0_proj_in.safetensors");
    const error = await assertRefused(
      () => convertAdapter(other, join(folder, "other"), { to: "original" }),
      "no_original_name",
    );
    assertStringIncludes(error.fix, "kohya");
  }));

Deno.test("convertAdapter() keeps an embedding's ΔW through PEFT, MLX and GGUF, and refuses it in kohya files", () =>
  inTemporaryFolder(async (folder) => {
    const embedding = "base_model.model.model.embed_tokens";
    const input = await writePeftFolder(join(folder, "in"), { r: 2, lora_alpha: 4 }, {
      ...Object.fromEntries(
        Object.entries(factors("model.layers.0.mlp.up_proj", 2, 3, 5)).map((
          [name, { shape }],
          seed,
        ) => [name, random(seed, ...shape)]),
      ),
      [`${embedding}.lora_embedding_A`]: random(7, 2, 11),
      [`${embedding}.lora_embedding_B`]: random(8, 3, 2),
    });
    using expected = await openAdapter(input);
    const { form, inFeatures, outFeatures } = expected.modules.get("model.embed_tokens")!;
    assertEquals([form?.kind, inFeatures, outFeatures], ["embedding", 3, 11]);
    const path = await convertThrough(folder, input, ["mlx", "gguf", "peft"], { base: BASE });
    using found = await openAdapter(path);
    await assertEqualDeltas(found, expected);
    for (const to of ["kohya", "diffusers", "original"] as const) {
      const error = await assertRefused(
        () => convertAdapter(input, join(folder, to), { to }),
        "form_unsupported",
      );
      assertStringIncludes(error.message, "model.embed_tokens is an embedding");
      assertStringIncludes(error.fix, "--drop model.embed_tokens");
    }
  }));

Deno.test("convertAdapter() refuses convolutions in MLX and GGUF files, and image models too", () =>
  inTemporaryFolder(async (folder) => {
    const conv = await writePeftFolder(join(folder, "conv"), { r: 2 }, {
      "base_model.model.model.layers.0.conv.lora_A.weight": zeros(2, 3, 4),
      "base_model.model.model.layers.0.conv.lora_B.weight": zeros(3, 2, 1),
    });
    const unet = await writePeftFolder(join(folder, "unet"), { r: 2 }, factors("down_blocks.0.x", 2, 3, 3));
    for (const to of ["mlx", "gguf"] as const) {
      const options = { to, base: BASE };
      const error = await assertRefused(
        () => convertAdapter(conv, join(folder, to), options),
        "form_unsupported",
      );
      assertStringIncludes(error.fix, "peft");
      const other = await assertRefused(
        () => convertAdapter(unet, join(folder, to), options),
        "component_unsupported",
      );
      assertStringIncludes(other.fix, "kohya");
    }
  }));

Deno.test("convertAdapter() writes a single file where the output's name is one, and refuses folders' layouts there", () =>
  inTemporaryFolder(async (folder) => {
    const file = join(folder, "one.safetensors");
    await convertAdapter(ADAPTER, file, { to: "kohya" });
    using adapter = await openAdapter(file);
    assertEquals(adapter.format, "kohya");
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name), ["one.safetensors"]);
    const error = await assertRefused(
      () => convertAdapter(ADAPTER, join(folder, "two.safetensors"), { to: "peft" }),
      "needs_folder",
    );
    assertStringIncludes(error.fix, "folder");
  }));

Deno.test("convertAdapter() names the input that holds NaN, and the output that is too small for a value", () =>
  inTemporaryFolder(async (folder) => {
    const holding = (name: string, value: number) =>
      writePeftFolder(join(folder, name), { peft_type: "LORA", r: 1, lora_alpha: 1, target_modules: ["q"] }, {
        "base_model.model.layers.0.q.lora_A.weight": { shape: [1, 2], values: [1, value] },
        "base_model.model.layers.0.q.lora_B.weight": { shape: [2, 1], values: [1, 2] },
      });
    const output = join(folder, "out");
    const whereOf = async (input: string, code: string) =>
      (await assertRefused(() => convertAdapter(input, output, { to: "kohya", dtype: "float16" }), code))
        .where;
    const nan = await holding("nan", NaN);
    assertEquals(await whereOf(nan, "not_finite"), `${nan} layers.0.q lora_A`);
    const large = await whereOf(await holding("large", 1e6), "f16_overflow");
    assert(large.startsWith(`${output}/`), large);
  }));

Deno.test("convertAdapter() refuses an existing output unless forced, and leaves nothing behind when it fails", () =>
  inTemporaryFolder(async (folder) => {
    const output = join(folder, "out");
    await convertAdapter(ADAPTER, output, { to: "kohya" });
    await assertRefused(() => convertAdapter(ADAPTER, output, { to: "mlx" }), "target_exists");
    await convertAdapter(ADAPTER, output, { to: "mlx", force: true });
    await assertRefused(
      () => convertAdapter(ADAPTER, output, { to: "gguf", force: true }),
      "architecture_unknown",
    );
    using adapter = await openAdapter(output);
    assertEquals(adapter.format, "mlx");
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 1);
  }));

Deno.test("convertAdapter() refuses to replace what it reads or the base model's folder, forced too", () =>
  inTemporaryFolder(async (folder) => {
    const input = join(folder, "adapter");
    await convertAdapter(ADAPTER, input, { to: "kohya" });
    const weights = join(input, "lora.safetensors");
    const before = await Deno.readFile(weights);
    for (
      const [from, output] of [[input, input], [input, folder], [input, weights], [weights, input]] as const
    ) {
      await assertRefused(
        () => convertAdapter(from, output, { to: "kohya", force: true }),
        "output_is_input",
      );
    }
    for (const output of [BASE, join(BASE, "..")]) {
      await assertRefused(
        () => convertAdapter(ADAPTER, output, { to: "gguf", base: BASE, force: true }),
        "output_is_input",
      );
    }
    assertEquals(await Deno.readFile(weights), before);
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 1);
  }));

Deno.test("convertAdapter() keeps the source's dtype unless told otherwise, and rounds once", () =>
  inTemporaryFolder(async (folder) => {
    const half = join(folder, "half");
    await convertAdapter(ADAPTER, half, { to: "mlx", dtype: "float16" });
    const back = join(folder, "back");
    const conversion = await convertAdapter(half, back, { to: "kohya" });
    assertEquals(conversion.dtype, "float16");
    using source = await openAdapter(ADAPTER);
    using found = await openAdapter(back);
    for (const [name, { a }] of source.modules) {
      const expected = (await a.readFloat32()).map(Math.f16round);
      assertEquals(await found.modules.get(name)!.a.readFloat32(), expected);
    }
  }));

Deno.test("convertAdapter() carries metadata over, drops what no longer holds and adds where it came from", () =>
  inTemporaryFolder(async (folder) => {
    const file = join(folder, "mine.safetensors");
    const metadata = {
      ss_output_name: "mine",
      sshs_model_hash: "00",
      sshs_legacy_hash: "00",
      "modelspec.hash_sha256": "00",
      "modelspec.architecture": "stable-diffusion-v1/lora",
      ss_network_dim: "64",
    };
    await Deno.writeFile(
      file,
      rawFloat32File({
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": random(1, 4, 6),
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": random(2, 6, 4),
      }, metadata),
    );
    const output = join(folder, "out.safetensors");
    await convertAdapter(file, output, { to: "diffusers" });
    using found = await openAdapter(output);
    const { lora_adapter_metadata, "loom.converted_sha256": hash, ...rest } = found.metadata;
    assertEquals(rest, {
      format: "pt",
      ss_output_name: "mine",
      "modelspec.architecture": "stable-diffusion-v1/lora",
      "modelspec.sai_model_spec": "1.0.1",
      "modelspec.title": "mine",
      "loom.converted_from": "kohya mine",
    });
    assertEquals(JSON.parse(lora_adapter_metadata!)["unet.r"], 4);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(file)));
    assertEquals(hash, digest.toHex());
    const again = join(folder, "again.safetensors");
    await convertAdapter(output, again, { to: "kohya" });
    using kohya = await openAdapter(again);
    assertEquals([kohya.metadata["ss_network_dim"], kohya.metadata["ss_network_alpha"]], ["4", "4"]);
  }));

Deno.test("convertAdapter() stops at a signal and leaves nothing behind", () =>
  inTemporaryFolder(async (folder) => {
    const output = join(folder, "out");
    let failed = false;
    await convertAdapter(ADAPTER, output, { to: "kohya", signal: AbortSignal.abort() })
      .catch(() => failed = true);
    assert(failed);
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
  }));
