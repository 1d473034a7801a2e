/** Reading and writing of LoRA adapters and model weights: validated, in ranges, atomic. */
export { FormatError } from "./errors.ts";
export type {
  Adapter,
  AdapterSpec,
  AdapterWriter,
  LoraModule,
  ModuleForm,
  ModuleKeys,
  ModuleSpec,
  Warning,
} from "./adapter.ts";
export { openAdapter } from "./open_adapter.ts";
export type { OpenOptions } from "./layouts/layout.ts";
export { type BaseModel, readBaseModel } from "./base/base_model.ts";
export { type BaseWeights, openBaseWeights } from "./base/base_weights.ts";
export {
  createAdapterWriter,
  isSingleFile,
  OUTPUT_FORMATS,
  type OutputFormat,
} from "./create_adapter_writer.ts";
export { createPeftWriter, peftConfig, type PeftSpec } from "./layouts/peft/write.ts";
export { type Conversion, convertAdapter, type ConvertOptions } from "./convert/convert.ts";
export { inNamesOf } from "./convert/names.ts";
export { alignAdapters } from "./fusion/align.ts";
export { fuseModules, type FusePart } from "./fusion/fuse_modules.ts";
export { splitModule, type SplitPart } from "./fusion/split_module.ts";
export { inDiffusersScheme, inOriginalScheme } from "./fusion/schemes.ts";
export { canonicalPath, moduleKey } from "./names/canonical.ts";
export { type Component, splitComponent } from "./names/components.ts";
export {
  type Engine,
  ENGINE_TITLES,
  ENGINES,
  type ServingReport,
  servingReport,
  type ServingVerdict,
} from "./serving/report.ts";
export { servingRank } from "./serving/rank.ts";
export { openSafetensors, type SafetensorsFile } from "./safetensors/read.ts";
export type { StoredTensor, TensorFile } from "./tensors/tensor_file.ts";
export { type ModelWeights, openModelWeights } from "./safetensors/sharded.ts";
export type { StoredDType } from "./safetensors/dtypes.ts";
export type { SafetensorsLimits } from "./safetensors/limits.ts";
export {
  createSafetensorsWriter,
  type SafetensorsWriter,
  type TensorDescription,
} from "./safetensors/write.ts";
export { type GgufFile, openGguf } from "./gguf/read.ts";
export type { GgufLimits } from "./gguf/limits.ts";
export type { GgufValue } from "./gguf/types.ts";
export { createGgufWriter, type WrittenValue } from "./gguf/write.ts";
export { type Capture, type CapturedModule, openCapture } from "./captures/capture.ts";
export { openNpz } from "./npz/read.ts";
export { assertFinite } from "./numbers/finite.ts";
export { narrow, type OutputDType, STORED_NAME } from "./numbers/narrow.ts";
export { widen } from "./numbers/widen.ts";
export { sha256File } from "./io/hash.ts";
export { refuseForeign } from "./earlier_result.ts";
export { refuseInputs } from "./io/guarded_inputs.ts";
export { isAbandoned, randomSuffix, releaseSuffix } from "./io/partial_names.ts";
export { syncDirectory } from "./io/sync_directory.ts";
export { writeFileAtomic } from "./io/write_file_atomic.ts";
export {
  replaceDirectory,
  stageDirectory,
  stageFile,
  type Staging,
  type StagingOptions,
} from "./io/staging.ts";
export { outsideStaging } from "./io/outside_staging.ts";
