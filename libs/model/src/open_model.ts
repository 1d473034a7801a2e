import { join } from "node:path";
import { openModelWeights } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import { architectureOf } from "./architectures/registry.ts";
import { Decoder } from "./decoder.ts";
import { readJsonFile } from "./json_file.ts";
import { LlamaModel } from "./llama_model.ts";
import { loadWeights } from "./load_weights.ts";

/** Options of {@linkcode openModel}. */
export interface OpenModelOptions {
  /**
   * `exact` (default) is what loading the folder gives everywhere. `bfloat16` reproduces a PyTorch model that was cast as a
   * whole (`model.bfloat16()`), which rounds the rotary frequencies with the weights; logits differ by about 1e-3.
   */
  readonly rotaryFrequencies?: "exact" | "bfloat16";
}

/**
 * Opens a Hugging Face model folder (`config.json` and safetensors, in one file or shards) and puts its weights on a
 * device.
 *
 * @throws {ModelError} `unsupported_architecture`; `unsupported_…` for a setting that would change the mathematics;
 *   `missing_weight`, `wrong_weight_shape`, `non_finite`; `missing_file`
 * @throws {FormatError} when the weight files are damaged
 */
export async function openModel(
  device: Device,
  directory: string,
  { rotaryFrequencies = "exact" }: OpenModelOptions = {},
): Promise<LlamaModel> {
  const path = join(directory, "config.json");
  const json = await readJsonFile(path);
  const architecture = architectureOf(json, path);
  const parsed = architecture.parseConfig(json, path);
  const config = { ...parsed, rope: { ...parsed.rope, roundToBfloat16: rotaryFrequencies === "bfloat16" } };
  using stored = await openModelWeights(directory);
  const weights = await loadWeights(device, architecture, config, stored);
  return new LlamaModel(new Decoder(device, architecture, config, weights));
}
