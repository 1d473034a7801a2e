import type { Adapter } from "../../adapter.ts";
import { fileAdapter } from "../factors/adapter.ts";
import { readFactorFile } from "../factors/read.ts";
import type { OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";
import { ADAPTER_METADATA, readAdapterMetadata } from "./metadata.ts";
import { readDiffusersPath } from "./paths.ts";

/** Reads a diffusers file; alpha comes from a side tensor or the metadata, and is r for each module without either. */
export async function readDiffusers(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { weights } = source;
  const where = `${weights.path} ${ADAPTER_METADATA}`;
  const configs = readAdapterMetadata(weights.metadata[ADAPTER_METADATA], where, options.drop);
  const { modules, warnings } = await readFactorFile(
    weights,
    "diffusers",
    (front) => ({ name: readDiffusersPath(front) }),
    options,
    (module, rank) => configs.scaleOf(module, rank),
  );
  return fileAdapter(source, "diffusers", modules, [...configs.warnings, ...warnings], {
    baseModel: configs.baseModel,
  });
}
