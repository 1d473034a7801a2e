import { promises as fs } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { type GgufFile, openGguf } from "../gguf/read.ts";
import { RandomAccessFile } from "../io/random_access_file.ts";
import { withFileErrors } from "../io/system_errors.ts";
import type { JsonObject } from "../json/parse.ts";
import { readJsonFile } from "../json/read_json_file.ts";
import { openSafetensors } from "../safetensors/read.ts";
import { listNames, openWeights, pickleRefused } from "../safetensors/sharded.ts";
import type { TensorFile } from "../tensors/tensor_file.ts";

/** What a path holds, opened but not yet understood. */
export interface AdapterSource {
  /** Absolute. */
  readonly path: string;
  /** The folder's name, or the file's without its extension. */
  readonly name: string;
  readonly container: "safetensors" | "gguf";
  readonly weights: TensorFile;
  /** The key-value pairs of a GGUF file. */
  readonly values: GgufFile["values"] | undefined;
  /** `adapter_config.json` beside the weights. */
  readonly config: JsonObject | undefined;
  readonly configPath: string;
}

const CONFIG_NAME = "adapter_config.json";
const PICKLE_EXTENSIONS = new Set([".bin", ".pt", ".pth", ".ckpt"]);

/**
 * Opens an adapter's folder or single file.
 *
 * @param weightFiles the names of weight files to look for in a folder, without their extension
 * @throws {FormatError} `no_adapter`, `pickle_refused`, `ambiguous_weights`, and all errors of the files
 */
export async function openSource(path: string, weightFiles: readonly string[]): Promise<AdapterSource> {
  const absolute = resolve(path);
  const status = await withFileErrors("open", path, () => fs.stat(absolute));
  return status.isDirectory()
    ? await openFolder(absolute, weightFiles)
    : await openFile(absolute, weightFiles);
}

async function openFolder(path: string, weightFiles: readonly string[]): Promise<AdapterSource> {
  const names = await listNames(path);
  const configPath = join(path, CONFIG_NAME);
  const config = names.includes(CONFIG_NAME) ? await readJsonFile(configPath) : undefined;
  const weights = await findWeights(path, names, weightFiles);
  return { path, name: basename(path), ...weights, config, configPath };
}

/** Opened weights, whatever the container. */
type Weights = Pick<AdapterSource, "container" | "weights" | "values">;

async function findWeights(
  path: string,
  names: readonly string[],
  weightFiles: readonly string[],
): Promise<Weights> {
  for (const stem of weightFiles) {
    const weights = await openWeights(path, names, stem);
    if (weights) return { container: "safetensors", weights, values: undefined };
  }
  const single = names.filter((name) => name.endsWith(".safetensors") || name.endsWith(".gguf"));
  if (single.length === 1) return await openWeightFile(join(path, single[0]!));
  if (single.length > 1) throw ambiguous(path, single);
  const pickle = names.find((name) => PICKLE_EXTENSIONS.has(extname(name)));
  if (pickle !== undefined) throw pickleRefused(join(path, pickle), join(path, "adapter_model.safetensors"));
  throw await noAdapter(path, names);
}

/** The first bytes say which container a file is, whatever its name. */
async function openWeightFile(path: string): Promise<Weights> {
  if (await startsAsGguf(path)) {
    const weights = await openGguf(path);
    return { container: "gguf", weights, values: weights.values };
  }
  return { container: "safetensors", weights: await openSafetensors(path), values: undefined };
}

async function startsAsGguf(path: string): Promise<boolean> {
  using file = await RandomAccessFile.open(path, "read");
  const magic = await file.read(0, Math.min(4, file.size));
  return String.fromCharCode(...magic) === "GGUF";
}

function ambiguous(path: string, names: readonly string[]): FormatError {
  return new FormatError(
    "ambiguous_weights",
    `${path} holds several weight files, first ${names[0]} and ${names[1]}, one was expected`,
    "Name one of the files instead of the folder.",
    path,
  );
}

async function noAdapter(path: string, names: readonly string[]): Promise<FormatError> {
  const inside: string[] = [];
  for (const name of names) {
    if (await fs.access(join(path, name, CONFIG_NAME)).then(() => true, () => false)) inside.push(name);
  }
  const fix = inside.length > 0
    ? `The subfolders hold adapters: name one of ${inside.map((name) => join(path, name)).join(", ")}.`
    : "Give a folder with adapter_config.json and adapter_model.safetensors, or a single adapter file.";
  return new FormatError("no_adapter", `${path} holds no adapter weights`, fix, path);
}

async function openFile(path: string, weightFiles: readonly string[]): Promise<AdapterSource> {
  const extension = extname(path);
  if (PICKLE_EXTENSIONS.has(extension)) {
    throw pickleRefused(path, `${path.slice(0, -extension.length)}.safetensors`);
  }
  const stem = basename(path, extension);
  const configPath = join(dirname(path), CONFIG_NAME);
  // A configuration describes the weight file of its own folder, not any other file that lies there.
  const config = weightFiles.includes(stem) ? await readOptionalJson(configPath) : undefined;
  return { path, name: stem, ...await openWeightFile(path), config, configPath };
}

async function readOptionalJson(path: string): Promise<JsonObject | undefined> {
  try {
    return await readJsonFile(path);
  } catch (error) {
    if (error instanceof FormatError && error.code === "not_found") return undefined;
    throw error;
  }
}
