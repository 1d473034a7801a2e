/** Adapters of image and video models at real size: read, merged, converted, and written back under their own names. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { convertAdapter, type LoraModule, openAdapter } from "@lora-loom/formats";
import { diffAdapters } from "@lora-loom/merge";
import { seeded } from "@lora-loom/testing";
import { readFileSync } from "node:fs";
import { runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { safetensorsBytes } from "../support/safetensors.ts";
import { ADAPTER_KINDS, type AdapterKind } from "./image_models.ts";

/** Writes an adapter of rank 1 with every module of its model. */
async function writeAdapter(path: string, { endings, modules }: AdapterKind, seed: number): Promise<void> {
  const random = seeded(seed);
  const tensors: Record<string, { shape: number[]; values: ArrayLike<number> }> = {};
  const fill = (...shape: number[]) => {
    const count = shape.reduce((product, size) => product * size, 1);
    return { shape, values: Float32Array.from({ length: count }, () => random() - 0.5) };
  };
  const [a, b, alpha] = endings;
  for (const [front, [outFeatures, inFeatures, ...kernel]] of modules) {
    tensors[front + a] = fill(1, inFeatures, ...kernel);
    tensors[front + b] = fill(outFeatures, 1, ...kernel.map(() => 1));
    if (alpha) tensors[front + alpha] = { shape: [], values: [0.5] };
  }
  await Deno.writeFile(path, safetensorsBytes(tensors));
}

async function keysOf(path: string): Promise<string[]> {
  using adapter = await openAdapter(path);
  return [...adapter.modules.values()].flatMap(({ keys }) =>
    [keys!.a, keys!.b, keys!.alpha].filter((key) => key !== undefined)
  ).sort();
}

/** Rows of ΔW that are compared, and of how many modules one is. */
const [ROWS, STRIDE] = [3, 23];

/** The first rows of ΔW, entry by entry. */
async function firstRows({ a, b, scale, rank, inFeatures }: LoraModule): Promise<Float64Array> {
  const [left, right] = [await b.readFloat32(), await a.readFloat32()];
  const rows = new Float64Array(ROWS * inFeatures);
  for (let i = 0; i < rows.length; i++) {
    const [row, column] = [Math.floor(i / inFeatures), i % inFeatures];
    for (let k = 0; k < rank; k++) {
      rows[i]! += scale * left[row * rank + k]! * right[k * inFeatures + column]!;
    }
  }
  return rows;
}

for (const kind of ADAPTER_KINDS) {
  Deno.test(`merging ${kind.model} adapters with LEGO gives a ${kind.format} file with their own names`, () =>
    withFolder(async (folder) => {
      const paths = [1, 2].map((seed) => `${folder}/adapter-${seed}.safetensors`);
      for (const [i, path] of paths.entries()) await writeAdapter(path, kind, i + 1);
      using first = await openAdapter(paths[0]!);
      using second = await openAdapter(paths[1]!);
      assertEquals([first.format, first.modules.size, first.warnings], [kind.format, kind.modules.size, []]);
      const recipe = {
        method: "lego",
        adapters: paths.map((path) => ({ path })),
        parameters: { rank: 2, output_scale: "none" },
        output: { path: "merged", format: kind.format },
        device: "cpu",
      };
      await Deno.writeTextFile(`${folder}/recipe.yaml`, JSON.stringify(recipe));
      await runJson(["merge", `${folder}/recipe.yaml`]);
      assertEquals(await keysOf(`${folder}/merged`), await keysOf(paths[0]!));
      using merged = await openAdapter(`${folder}/merged`);
      for (const name of [...merged.modules.keys()].filter((_, index) => index % STRIDE === 0)) {
        const [found, left, right] = await Promise.all(
          [merged, first, second].map(({ modules }) => firstRows(modules.get(name)!)),
        );
        // With a cluster for every unit nothing is lost: the merged ΔW is the sum.
        assert(found!.every((value, i) => Math.abs(value - left![i]! - right![i]!) < 1e-6), name);
      }
    }));
}

for (
  const [model, between] of [["sd_1_5", "diffusers"], ["flux", "diffusers"], ["wan_2_2", "kohya"]] as const
) {
  Deno.test(`converting ${model} adapters to ${between} and back keeps every ΔW and name`, () =>
    withFolder(async (folder) => {
      const kind = ADAPTER_KINDS.find((one) => one.model === model)!;
      const [source, there, back] = ["in", "there", "back"].map((name) => `${folder}/${name}.safetensors`);
      await writeAdapter(source!, kind, 1);
      await convertAdapter(source!, there!, { to: between });
      await convertAdapter(there!, back!, { to: kind.format });
      using expected = await openAdapter(source!);
      using found = await openAdapter(back!);
      assertEquals([...found.modules.keys()], [...expected.modules.keys()]);
      const { overall } = await diffAdapters(back!, source!);
      assertLess(overall, 1e-12);
    }));
}

/** Listings of key names of real adapters, which some checkouts have beside them. */
const LISTINGS = repositoryPath("../shared/wild/module-names");

Deno.test("the names above are those of real adapters, as far as listings of these are at hand", () => {
  for (const { model, endings, modules } of ADAPTER_KINDS) {
    const file = `${LISTINGS}/${model}_lora.txt`;
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch {
      console.log(`no listing for ${model} at hand: only the shapes and counts written here were used`);
      continue;
    }
    const [, total] = /Total keys: (\d+)/.exec(text)!;
    const isDora = text.includes(".dora_scale");
    assertEquals(Number(total), modules.size * (endings.length + (isDora ? 1 : 0)), model);
    const keys = new Set([...modules.keys()].flatMap((front) => endings.map((ending) => front + ending)));
    const listed = text.split("\n").filter((line) => /^ {2}\S+\.(alpha|weight)$/.test(line)).map((line) =>
      line.trim()
    );
    assert(listed.length > 0, model);
    assertEquals(listed.filter((key) => !keys.has(key)), [], model);
    const fronts = text.split("\n").filter((line) => /^ {2}lora_unet_\w+$/.test(line)).map((line) =>
      line.trim()
    );
    if (fronts.length > 0) assertEquals([...modules.keys()].sort(), fronts.sort(), model);
  }
});
