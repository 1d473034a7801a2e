import { assert, assertEquals } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import fc from "fast-check";
import { join } from "node:path";
import { openAdapter } from "../../open_adapter.ts";
import { servingRank } from "../../serving/rank.ts";
import { assertRefused, inTemporaryFolder } from "../../test_support.ts";
import { createPeftWriter, peftConfig, type PeftSpec } from "./write.ts";
import { targetsOf } from "./write_targets.ts";

const MODULE = { name: "model.layers.0.q_proj", inFeatures: 3, outFeatures: 2 };
const SPEC: PeftSpec = { modules: [MODULE], rank: 4, dtype: "float32" };

/** B·A in float64, by its definition: [out, in]. */
function delta(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  rank: number,
  inFeatures: number,
  outFeatures: number,
): number[] {
  return Array.from({ length: outFeatures * inFeatures }, (_, index) => {
    const [row, column] = [Math.floor(index / inFeatures), index % inFeatures];
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += b[row * rank + k]! * a[k * inFeatures + column]!;
    return sum;
  });
}

Deno.test("createPeftWriter() keeps every ΔW, padding modules of smaller rank", () =>
  inTemporaryFolder(async (folder) => {
    let run = 0;
    const dimensions = fc.record({
      inFeatures: fc.integer({ min: 1, max: 6 }),
      outFeatures: fc.integer({ min: 1, max: 6 }),
      rank: fc.nat(4),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(dimensions, { minLength: 1, maxLength: 4 }),
        fc.nat(1000),
        async (shapes, seed) => {
          const path = join(folder, String(run++));
          await Deno.mkdir(path);
          const modules = shapes.map((shape, i) => ({ name: `model.layers.${i}.q_proj`, ...shape }));
          const writer = await createPeftWriter(path, { modules, rank: 4, dtype: "float32" });
          const expected = new Map<string, number[]>();
          for (const { name, inFeatures, outFeatures, rank } of modules) {
            const a = new Float32Array(gaussians(rank * inFeatures, seed));
            const b = new Float32Array(gaussians(outFeatures * rank, seed + 1));
            expected.set(name, delta(a, b, rank, inFeatures, outFeatures));
            await writer.write(name, a, b);
          }
          await writer.finish();
          using adapter = await openAdapter(path);
          assertEquals(adapter.warnings, []);
          for (const { name, rank, inFeatures, outFeatures, scale, a, b } of adapter.modules.values()) {
            assertEquals([rank, scale], [4, 1]);
            const written = delta(
              await a.readFloat32(),
              await b.readFloat32(),
              rank,
              inFeatures,
              outFeatures,
            );
            assertEquals(written.map((value) => value + 0), expected.get(name)!.map((value) => value + 0));
          }
        },
      ),
      { seed: 10, numRuns: 40 },
    );
  }));

Deno.test("createPeftWriter() writes the configuration that PEFT, vLLM and llama.cpp take", () =>
  inTemporaryFolder(async (folder) => {
    const writer = await createPeftWriter(folder, {
      ...SPEC,
      baseModel: "org/base",
      taskType: "CAUSAL_LM",
      metadata: { "loom.method": "lego" },
    });
    await writer.write(MODULE.name, new Float64Array(12), new Float64Array(8));
    await writer.finish();
    assertEquals(JSON.parse(await Deno.readTextFile(join(folder, "adapter_config.json"))), {
      alpha_pattern: {},
      auto_mapping: null,
      base_model_name_or_path: "org/base",
      bias: "none",
      fan_in_fan_out: false,
      inference_mode: true,
      init_lora_weights: true,
      lora_alpha: 4,
      lora_dropout: 0,
      modules_to_save: null,
      peft_type: "LORA",
      r: 4,
      rank_pattern: {},
      revision: null,
      target_modules: ["q_proj"],
      task_type: "CAUSAL_LM",
      use_dora: false,
      use_rslora: false,
    });
    using adapter = await openAdapter(folder);
    assertEquals(adapter.metadata, { format: "pt", "loom.method": "lego" });
    const { a, b } = adapter.modules.get(MODULE.name)!;
    assertEquals([a.name, b.name], [
      "base_model.model.model.layers.0.q_proj.lora_A.weight",
      "base_model.model.model.layers.0.q_proj.lora_B.weight",
    ]);
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 2);
  }));

for (
  const [dtype, stored, value] of [["float16", "F16", 0.0999755859375], [
    "bfloat16",
    "BF16",
    0.10009765625,
  ]] as const
) {
  Deno.test(`createPeftWriter() stores ${dtype} as ${stored}`, () =>
    inTemporaryFolder(async (folder) => {
      const writer = await createPeftWriter(folder, { ...SPEC, dtype });
      await writer.write(MODULE.name, new Float64Array(12).fill(0.1), new Float64Array(8));
      await writer.finish();
      using adapter = await openAdapter(folder);
      const { a } = adapter.modules.get(MODULE.name)!;
      assertEquals([a.dtype, (await a.readFloat32())[0]], [stored, value]);
    }));
}

Deno.test("AdapterWriter names the module whose values cannot be stored", () =>
  inTemporaryFolder(async (folder) => {
    const writer = await createPeftWriter(folder, { ...SPEC, dtype: "float16" });
    const overflow = await assertRefused(
      () => writer.write(MODULE.name, new Float32Array(12), new Float32Array(8).fill(7e4)),
      "f16_overflow",
    );
    assert(overflow.where.endsWith("model.layers.0.q_proj lora_B"), overflow.where);
    const broken = await assertRefused(
      () => writer.write(MODULE.name, new Float32Array(12).fill(NaN), new Float32Array(8)),
      "not_finite",
    );
    assert(broken.where.endsWith("model.layers.0.q_proj lora_A"), broken.where);
    await writer.abort();
  }));

Deno.test("AdapterWriter refuses unknown modules, wrong shapes and an early finish, and leaves nothing after abort", () =>
  inTemporaryFolder(async (folder) => {
    const writer = await createPeftWriter(folder, SPEC);
    const a = new Float32Array(12);
    await assertRefused(() => writer.write("other", a, new Float32Array(8)), "module_not_found");
    await assertRefused(
      () => writer.write(MODULE.name, new Float32Array(13), new Float32Array(8)),
      "shape_mismatch",
    );
    await assertRefused(() => writer.write(MODULE.name, a, new Float32Array(6)), "shape_mismatch");
    await assertRefused(
      () => writer.write(MODULE.name, new Float32Array(15), new Float32Array(10)),
      "shape_mismatch",
    );
    await assertRefused(() => writer.finish(), "tensor_missing");
    await writer.abort();
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
  }));

Deno.test("createPeftWriter() refuses an empty or ambiguous specification, and a folder in use", () =>
  inTemporaryFolder(async (folder) => {
    await assertRefused(() => createPeftWriter(folder, { ...SPEC, modules: [] }), "no_modules");
    await assertRefused(() => createPeftWriter(folder, { ...SPEC, rank: 0 }), "invalid_rank");
    await assertRefused(
      () => createPeftWriter(folder, { ...SPEC, modules: [MODULE, MODULE] }),
      "duplicate_key",
    );
    await assertRefused(() => createPeftWriter(join(folder, "missing"), SPEC), "not_found");
    await Deno.writeTextFile(join(folder, "adapter_model.safetensors"), "mine");
    await assertRefused(() => createPeftWriter(folder, SPEC), "target_exists");
    assertEquals(await Deno.readTextFile(join(folder, "adapter_model.safetensors")), "mine");
  }));

Deno.test("peftConfig() keeps what it is told of targets and orientation", () => {
  const config = peftConfig({ ...SPEC, targetModules: ["v_proj", "q_proj"], fanInFanOut: true });
  assertEquals([config["target_modules"], config["fan_in_fan_out"]], [["q_proj", "v_proj"], true]);
});

Deno.test("targetsOf() shortens names only when the layers run from 0 on without a gap", () => {
  const layers = (numbers: number[]) =>
    numbers.flatMap((i) => [`model.layers.${i}.q_proj`, `model.layers.${i}.v_proj`]);
  assertEquals(targetsOf(layers([0, 1, 2])), ["q_proj", "v_proj"]);
  assertEquals(targetsOf(layers([1, 2])), layers([1, 2]));
  assertEquals(targetsOf(layers([0, 2])), layers([0, 2]));
  assertEquals(targetsOf(["lm_head"]), ["lm_head"]);
  assertEquals(targetsOf(["b.0.attn.to_out.0", "b.1.attn.to_out.0"]), ["to_out.0"]);
});

Deno.test("servingRank() is the smallest rank of vLLM's list that is large enough", () => {
  assertEquals([1, 2, 8, 9, 24, 32, 257, 512, 513].map(servingRank), [1, 8, 8, 16, 32, 32, 320, 512, 513]);
});
