import { join } from "node:path";
import { openModelWeights } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import { familyOf } from "./architectures/registry.ts";
import type { BaseModel } from "./base_model.ts";
import { readJsonFile } from "./json_file.ts";
import type { OpenModelOptions } from "./model_family.ts";

/**
 * Opens a Hugging Face model folder (`config.json` and safetensors, in one file or shards) and puts its weights on a
 * device: all of them, or with `residency: streamed` those of the stage that runs, whenever it does.
 *
 * @throws {ModelError} `unsupported_architecture`; `unsupported_…` for a setting that would change the mathematics;
 *   `missing_weight`, `wrong_weight_shape`, `non_finite`; `missing_file`, `not_a_directory`
 * @throws {FormatError} when the weight files are damaged
 */
export async function openModel(
  device: Device,
  directory: string,
  options: OpenModelOptions = {},
): Promise<BaseModel> {
  const path = join(directory, "config.json");
  const json = await readJsonFile(path);
  const family = familyOf(json, path);
  const stored = await openModelWeights(directory);
  try {
    const model = await family.open(device, json, path, stored, options);
    if (model.residency === "resident") stored.close();
    return model;
  } catch (error) {
    stored.close();
    throw error;
  }
}
