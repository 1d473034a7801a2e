import { join } from "node:path";
import { openModelWeights } from "@lora-loom/formats";
import { familyOf } from "./architectures/registry.ts";
import type { Stage } from "./base_model.ts";
import { readJsonFile } from "./json_file.ts";
import { parameterCount } from "./residency.ts";

/** Sizes of a model, from which its needs of memory follow. */
export interface ModelShapes {
  readonly stages: readonly Stage[];
  readonly layers: number;
  readonly hiddenSize: number;
  readonly vocabularySize: number;
  /** Keys and values that decoding keeps of one token in one layer. */
  readonly keyValueWidth: number;
  /** Whether its weights can be streamed. */
  readonly streamable: boolean;
}

/** A model's sizes, and how much of it there is on disk. */
export interface StoredModelShapes extends ModelShapes {
  readonly parameters: number;
  readonly storedBytes: number;
}

/**
 * Reads the sizes of the model in a folder: its configuration and the headers of its files, no weight.
 *
 * @throws {ModelError} `unsupported_architecture`, `unsupported_…`, `missing_file`
 * @throws {FormatError} when the weight files are missing or cut short
 */
export async function readModelShapes(directory: string): Promise<StoredModelShapes> {
  const path = join(directory, "config.json");
  const json = await readJsonFile(path);
  const shapes = familyOf(json, path).shapes(json, path);
  using stored = await openModelWeights(directory);
  const storedBytes = [...stored.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  return { ...shapes, parameters: parameterCount(stored), storedBytes };
}
