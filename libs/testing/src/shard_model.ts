import { copyFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createSafetensorsWriter, openModelWeights, type StoredTensor } from "@lora-loom/formats";

/**
 * Copies a model's folder with its weights in shards, as large models come: tensors go to the shards in turn, so that no layer is in
 * one file.
 *
 * @returns the names of the shards
 */
export async function shardModel(from: string, to: string, shards: number): Promise<string[]> {
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from)) {
    if (!name.startsWith("model.safetensors")) await copyFile(join(from, name), join(to, name));
  }
  using weights = await openModelWeights(from);
  const names = Array.from(
    { length: shards },
    (_, shard) => `model-${padded(shard + 1)}-of-${padded(shards)}.safetensors`,
  );
  const tensors = [...weights.tensors.values()];
  for (const [shard, name] of names.entries()) {
    await writeShard(join(to, name), tensors.filter((_, index) => index % shards === shard));
  }
  const weightMap = Object.fromEntries(tensors.map((tensor, index) => [tensor.name, names[index % shards]!]));
  await writeFile(join(to, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
  return names;
}

async function writeShard(path: string, tensors: readonly StoredTensor[]): Promise<void> {
  const writer = await createSafetensorsWriter(path, tensors, { format: "pt" });
  for (const tensor of tensors) await writer.write(tensor.name, await tensor.read());
  await writer.finish();
}

function padded(number: number): string {
  return String(number).padStart(5, "0");
}
