/** Reading and writing of LoRA adapters and model weights: validated, in ranges, atomic. */
export { FormatError } from "./errors.ts";
export type { Adapter, AdapterWriter, LoraModule, Warning } from "./adapter.ts";
export { openAdapter } from "./open_adapter.ts";
export type { OpenOptions } from "./layouts/layout.ts";
export { createPeftWriter, peftConfig, type PeftSpec } from "./layouts/peft/write.ts";
export { servingRank } from "./serving_rank.ts";
export { openSafetensors, type SafetensorsFile, type StoredTensor } from "./safetensors/read.ts";
export { type ModelWeights, openModelWeights } from "./safetensors/sharded.ts";
export type { StoredDType } from "./safetensors/dtypes.ts";
export type { SafetensorsLimits } from "./safetensors/limits.ts";
export {
  createSafetensorsWriter,
  type SafetensorsWriter,
  type TensorDescription,
} from "./safetensors/write.ts";
export { assertFinite } from "./numbers/finite.ts";
export { narrow, type OutputDType, STORED_NAME } from "./numbers/narrow.ts";
export { widen } from "./numbers/widen.ts";
export { sha256File } from "./io/hash.ts";
export { writeFileAtomic } from "./io/write_file_atomic.ts";
export {
  replaceDirectory,
  stageDirectory,
  stageFile,
  type Staging,
  type StagingOptions,
} from "./io/staging.ts";
