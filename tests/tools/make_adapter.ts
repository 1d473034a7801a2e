/**
 * Makes random PEFT adapters at the shapes of Llama-2-7B, streamed to disk:
 *
 *     deno run -A tests/tools/make_adapter.ts FOLDER [--count 5] [--rank 64] [--layers 32]
 *
 * Writes FOLDER/adapter-1 … FOLDER/adapter-N in float16; folders that exist are kept.
 */
import { existsSync } from "node:fs";
import { parseArgs } from "@std/cli/parse-args";
import { createSafetensorsWriter, replaceDirectory } from "@lora-loom/formats";
import { type LinearShape, llama7bModules } from "./llama_shapes.ts";
import { normalHalves } from "./random_values.ts";

/** How trained factors are spread: A as Kaiming initialisation leaves it, B small. */
const DEVIATION_B = 0.01;

/** Writes one random adapter, complete or not at all. */
export async function makeAdapter(
  folder: string,
  modules: readonly LinearShape[],
  rank: number,
  seed: number,
): Promise<void> {
  await replaceDirectory(folder, async (staged) => {
    const key = (name: string, factor: string) => `base_model.model.${name}.lora_${factor}.weight`;
    const entries = modules.flatMap(({ name, inFeatures, outFeatures }) => [
      { name: key(name, "A"), dtype: "F16" as const, shape: [rank, inFeatures] },
      { name: key(name, "B"), dtype: "F16" as const, shape: [outFeatures, rank] },
    ]);
    const writer = await createSafetensorsWriter(`${staged}/adapter_model.safetensors`, entries, {
      format: "pt",
    });
    for (const [index, { name, inFeatures, outFeatures }] of modules.entries()) {
      const deviationA = 1 / Math.sqrt(3 * inFeatures);
      const start = seed * 1_000_003 + 2 * index;
      await writer.write(key(name, "A"), normalHalves(rank * inFeatures, deviationA, start));
      await writer.write(key(name, "B"), normalHalves(outFeatures * rank, DEVIATION_B, start + 1));
    }
    await writer.finish();
    await Deno.writeTextFile(
      `${staged}/adapter_config.json`,
      JSON.stringify(configuration(modules, rank), null, 2),
    );
  });
}

function configuration(modules: readonly LinearShape[], rank: number): Record<string, unknown> {
  return {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: "meta-llama/Llama-2-7b-hf",
    r: rank,
    lora_alpha: 2 * rank,
    target_modules: [...new Set(modules.map(({ name }) => name.split(".").at(-1)!))],
    bias: "none",
  };
}

/** Makes those of FOLDER/adapter-1 … adapter-N that do not exist yet, and returns the paths of all. */
export async function makeAdapters(
  folder: string,
  { count, rank, layers }: { count: number; rank: number; layers: number },
): Promise<string[]> {
  const paths = Array.from({ length: count }, (_, index) => `${folder}/adapter-${index + 1}`);
  for (const [index, path] of paths.entries()) {
    if (existsSync(path)) continue;
    console.error(`making ${path}`);
    await makeAdapter(path, llama7bModules(layers), rank, index + 1);
  }
  return paths;
}

if (import.meta.main) {
  const flags = parseArgs(Deno.args, {
    string: ["count", "rank", "layers"],
    default: { count: "5", rank: "64", layers: "32" },
  });
  const folder = String(flags._[0] ?? "");
  if (folder === "") throw new Error("name the folder to write to");
  await makeAdapters(folder, {
    count: Number(flags.count),
    rank: Number(flags.rank),
    layers: Number(flags.layers),
  });
}
