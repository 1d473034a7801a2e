import type { Adapter } from "../adapter.ts";
import type { OutputFormat } from "../create_adapter_writer.ts";
import { basename } from "node:path";

/** Metadata that describes the source's own bytes or layout and is wrong of any other file. */
const NOT_CARRIED = [
  /^(format|sshs_.*|modelspec\.hash_sha256|lora_adapter_metadata|loom\.module_names|loom\.converted_.*)$/,
  /^(ss_network_dim|ss_network_alpha|ss_network_module)$/,
  /^(unet|text_encoder)(:\d+:rank)?$/,
  /^<.+>$/,
  /^(general\.(architecture|type|alignment|file_type|quantization_version|base_model\..*)|adapter\..*)$/,
];

/** The version of SAI ModelSpec whose keys are written. */
const MODEL_SPEC = "1.0.1";
const WITH_MODEL_SPEC: readonly OutputFormat[] = ["kohya", "diffusers", "original"];

/**
 * The metadata of a converted adapter: the source's, where it still holds, and where the adapter came from.
 *
 * @param hash sha256 of the source's weight file
 */
export function convertedMetadata(
  adapter: Adapter,
  format: OutputFormat,
  hash: string,
): Record<string, string> {
  const carried = Object.entries(adapter.metadata)
    .filter(([key]) => !NOT_CARRIED.some((pattern) => pattern.test(key)));
  const metadata: Record<string, string> = Object.fromEntries(carried);
  if (WITH_MODEL_SPEC.includes(format)) {
    metadata["modelspec.sai_model_spec"] ??= MODEL_SPEC;
    metadata["modelspec.title"] ??= adapter.name;
  }
  if (format === "kohya" && adapter.baseModel !== undefined) {
    metadata["ss_sd_model_name"] ??= basename(adapter.baseModel);
  }
  metadata["loom.converted_from"] = `${adapter.format} ${adapter.name}`;
  metadata["loom.converted_sha256"] = hash;
  return metadata;
}
