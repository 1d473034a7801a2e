import type { ModelWeights } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import type { BaseModel } from "./base_model.ts";
import type { ModelShapes } from "./model_shapes.ts";
import type { ResidencyChoice } from "./residency.ts";

/** Options of {@linkcode openModel}. */
export interface OpenModelOptions {
  /**
   * `exact` (default) is what loading the folder gives everywhere. `bfloat16` reproduces a PyTorch model that was cast as a
   * whole (`model.bfloat16()`), which rounds the rotary frequencies with the weights; logits differ by about 1e-3.
   */
  readonly rotaryFrequencies?: "exact" | "bfloat16";
  /**
   * Where weights are between uses. Default `auto`: `resident` up to 6 GiB of widened weights, or a quarter of the free host memory
   * where the device computes in it; else `streamed`.
   */
  readonly residency?: ResidencyChoice;
  /** Decoders decode as many prompts together as have keys and values of so many bytes at most. Default 4 GiB. */
  readonly keyValueBytes?: number;
}

/** A family of models that can be run. */
export interface ModelFamily {
  /** `model_type` in `config.json`. */
  readonly modelType: string;
  /** What `architectures` in `config.json` calls the class with an output projection. */
  readonly className: string;
  /**
   * Sizes of a model.
   *
   * @param json the parsed `config.json`
   * @param where its path, for errors
   */
  shapes(json: unknown, where: string): ModelShapes;
  /**
   * Puts a model on a device.
   *
   * @param json the parsed `config.json`
   * @param where its path, for errors
   * @param stored stays open as long as a streamed model lives, which then closes it; a resident one is done with it
   * @throws {ModelError} as `openModel` does
   */
  open(
    device: Device,
    json: unknown,
    where: string,
    stored: ModelWeights,
    options: OpenModelOptions,
  ): Promise<BaseModel>;
}
