import { join, resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { listNames, openWeights } from "../safetensors/sharded.ts";
import type { StoredTensor, TensorFile } from "../tensors/tensor_file.ts";
import { COMPONENT_FOLDERS, WEIGHT, WEIGHT_STEMS } from "./base_model.ts";

/** The weights of a base model by module. */
export interface BaseWeights {
  readonly path: string;
  /** `[out, in]`, of a convolution `[out, channels, …kernel]`, by the module's path, after the component's name in a pipeline. */
  readonly weights: ReadonlyMap<string, StoredTensor>;
  close(): void;
  [Symbol.dispose](): void;
}

/**
 * Opens the weights of a model's folder: a Hugging Face model, a diffusers pipeline with its components, or one of these.
 *
 * @throws {FormatError} `weights_missing`, and the errors of the files
 */
export async function openBaseWeights(directory: string): Promise<BaseWeights> {
  const files: TensorFile[] = [];
  const close = () => files.forEach((file) => file.close());
  try {
    const names = await listNames(directory);
    const weights = new Map<string, StoredTensor>();
    await addFolder(directory, "", names, files, weights);
    for (const component of COMPONENT_FOLDERS.filter((folder) => names.includes(folder))) {
      const inside = join(directory, component);
      await addFolder(inside, `${component}.`, await listNames(inside), files, weights);
    }
    if (weights.size === 0) throw noWeights(directory);
    return { path: resolve(directory), weights, close, [Symbol.dispose]: close };
  } catch (error) {
    close();
    throw error;
  }
}

async function addFolder(
  directory: string,
  prefix: string,
  names: readonly string[],
  files: TensorFile[],
  weights: Map<string, StoredTensor>,
): Promise<void> {
  for (const stem of WEIGHT_STEMS) {
    const file = await openWeights(directory, names, stem);
    if (!file) continue;
    files.push(file);
    for (const [name, tensor] of file.tensors) {
      if (name.endsWith(WEIGHT)) weights.set(prefix + name.slice(0, -WEIGHT.length), tensor);
    }
    return;
  }
}

function noWeights(directory: string): FormatError {
  return new FormatError(
    "weights_missing",
    `${directory} holds no weights of a model in safetensors files`,
    "Give the folder of the base model, as downloaded from its hub.",
    directory,
  );
}
