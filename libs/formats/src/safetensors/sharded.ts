import { promises as fs } from "node:fs";
import { join, resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { withFileErrors } from "../io/system_errors.ts";
import { readJsonFile } from "../json/read_json_file.ts";
import type { StoredTensor } from "../tensors/tensor_file.ts";
import { openSafetensors, type SafetensorsFile } from "./read.ts";

/** `-00001-of-00002.safetensors`, `_00001.safetensors` */
const SHARD_ENDING = /^[-_](\d{5,6})(?:[-_]of[-_](\d{5,6}))?\.safetensors$/;

/** A base model's weights: `model.safetensors`, or its shards. */
export type ModelWeights = SafetensorsFile;

/**
 * Opens the weights of a Hugging Face model folder, all shards as one.
 *
 * @throws {FormatError} `weights_missing`, `pickle_refused`, `shard_missing`, … and all of {@linkcode openSafetensors}
 */
export async function openModelWeights(directory: string): Promise<ModelWeights> {
  const names = await listNames(directory);
  const weights = await openWeights(directory, names, "model");
  if (weights) return weights;
  const pickle = names.find((name) => /^pytorch_model.*\.(bin|pt|pth)$/.test(name));
  if (pickle !== undefined) throw pickleRefused(join(directory, pickle), "model.safetensors");
  throw new FormatError(
    "weights_missing",
    `${directory} holds neither model.safetensors nor model.safetensors.index.json`,
    "Give the folder of a Hugging Face model with its safetensors files.",
    directory,
  );
}

/** The weights `<stem>.safetensors` or their shards; undefined where the folder has neither. */
export async function openWeights(
  directory: string,
  names: readonly string[],
  stem: string,
): Promise<SafetensorsFile | undefined> {
  if (names.includes(`${stem}.safetensors`)) {
    return await openSafetensors(join(directory, `${stem}.safetensors`));
  }
  if (names.includes(`${stem}.safetensors.index.json`)) {
    return await openIndexed(directory, `${stem}.safetensors.index.json`);
  }
  const shards = listShards(directory, names, stem);
  return shards.length === 0 ? undefined : await openShards(directory, shards, []);
}

/** The names in a folder, sorted. */
export async function listNames(directory: string): Promise<string[]> {
  return (await withFileErrors("list", directory, () => fs.readdir(directory))).sort();
}

/** Why pickles are not read, and the command that converts one. */
export function pickleRefused(path: string, convertTo: string): FormatError {
  return new FormatError(
    "pickle_refused",
    `${path} is a pickle, which can run any program when it is read; safetensors was expected`,
    `Convert it where PyTorch is at hand: python -c "import sys, torch, safetensors.torch as s; ` +
      `s.save_file({k: v.contiguous() for k, v in torch.load(sys.argv[1], map_location='cpu', ` +
      `weights_only=True).items()}, sys.argv[2], metadata={'format': 'pt'})" '${path}' ${convertTo}`,
    path,
  );
}

/** Without an index the shards' own names say how many there must be: `<stem>-00001-of-00002.safetensors`. */
function listShards(directory: string, names: readonly string[], stem: string): string[] {
  const shards: string[] = [];
  let announced = 0;
  for (const name of names) {
    const match = name.startsWith(stem) ? SHARD_ENDING.exec(name.slice(stem.length)) : null;
    if (!match) continue;
    shards.push(name);
    announced = Math.max(announced, Number(match[1]), Number(match[2] ?? 0));
  }
  if (shards.length === announced) return shards;
  throw shardMissing(`${directory} holds ${shards.length} of ${announced} shards`, directory);
}

async function openIndexed(directory: string, indexName: string): Promise<SafetensorsFile> {
  const indexPath = join(directory, indexName);
  const weightMap = await readWeightMap(indexPath);
  const weights = await openShards(directory, [...new Set(weightMap.values())].sort(), [resolve(indexPath)]);
  for (const [tensor, shard] of weightMap) {
    if (weights.tensors.has(tensor)) continue;
    weights.close();
    throw new FormatError(
      "shard_tensor_missing",
      `${indexName} puts ${tensor} into ${shard}, which does not hold it`,
      "Fetch the folder's files again: they do not belong together.",
      `${indexPath} ${tensor}`,
    );
  }
  return weights;
}

async function readWeightMap(indexPath: string): Promise<Map<string, string>> {
  const map = (await readJsonFile(indexPath)).get("weight_map");
  if (!(map instanceof Map) || map.size === 0) {
    throw badIndex("weight_map is no object with entries", indexPath);
  }
  for (const shard of map.values()) {
    // A name with a path in it would let an index read any file of the machine.
    if (typeof shard !== "string" || !/^[^/\\\0]+\.safetensors$/.test(shard)) {
      throw badIndex(
        `weight_map names ${JSON.stringify(shard)}, the name of a safetensors file was expected`,
        indexPath,
      );
    }
  }
  return map as Map<string, string>;
}

function badIndex(message: string, where: string): FormatError {
  return new FormatError("index_invalid", message, "Restore the index from its source.", where);
}

async function openShards(
  directory: string,
  names: readonly string[],
  files: readonly string[],
): Promise<SafetensorsFile> {
  const shards: SafetensorsFile[] = [];
  const close = () => shards.forEach((shard) => shard.close());
  try {
    for (const name of names) shards.push(await openShard(directory, name));
    const tensors = mergeTensors(shards);
    const metadata = Object.freeze(Object.assign({}, ...shards.map((shard) => shard.metadata).reverse()));
    const allFiles = [...files, ...shards.map((shard) => shard.path)];
    return { path: resolve(directory), tensors, metadata, files: allFiles, close, [Symbol.dispose]: close };
  } catch (error) {
    close();
    throw error;
  }
}

async function openShard(directory: string, name: string): Promise<SafetensorsFile> {
  try {
    return await openSafetensors(join(directory, name));
  } catch (error) {
    if (error instanceof FormatError && error.code === "not_found") {
      throw shardMissing(`${join(directory, name)} is named by the index but missing`, join(directory, name));
    }
    throw error;
  }
}

function shardMissing(message: string, where: string): FormatError {
  return new FormatError("shard_missing", message, "Fetch the missing shards.", where);
}

function mergeTensors(shards: readonly SafetensorsFile[]): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const shard of shards) {
    for (const [name, tensor] of shard.tensors) {
      if (tensors.has(name)) {
        throw new FormatError(
          "duplicate_tensor",
          `${name} stands in two shards`,
          "Fetch the folder's files again: they do not belong together.",
          `${shard.path} ${name}`,
        );
      }
      tensors.set(name, tensor);
    }
  }
  return tensors;
}
