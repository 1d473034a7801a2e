import { join } from "node:path";
import { openModelWeights } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import { architectureOf } from "./architectures/registry.ts";
import { Decoder } from "./decoder.ts";
import { readJsonFile } from "./json_file.ts";
import { LlamaModel } from "./llama_model.ts";
import { loadWeights } from "./load_weights.ts";

/**
 * Opens a Hugging Face model folder (`config.json` and safetensors, in one file or shards) and puts its weights on a
 * device.
 *
 * @throws {ModelError} `unsupported_architecture`; `unsupported_…` for a setting that would change the mathematics;
 *   `missing_weight`, `wrong_weight_shape`, `non_finite`; `missing_file`
 * @throws {FormatError} when the weight files are damaged
 */
export async function openModel(device: Device, directory: string): Promise<LlamaModel> {
  const path = join(directory, "config.json");
  const json = await readJsonFile(path);
  const architecture = architectureOf(json, path);
  const config = architecture.parseConfig(json, path);
  using stored = await openModelWeights(directory);
  const weights = await loadWeights(device, architecture, config, stored);
  return new LlamaModel(new Decoder(device, architecture, config, weights));
}
