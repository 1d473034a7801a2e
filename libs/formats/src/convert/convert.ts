import { extname, join } from "node:path";
import type { Adapter, AdapterSpec, LoraModule, Warning } from "../adapter.ts";
import { type BaseModel, readBaseModel } from "../base/base_model.ts";
import {
  createAdapterWriter,
  isSingleFile,
  needsFolder,
  type OutputFormat,
} from "../create_adapter_writer.ts";
import { sha256File } from "../io/hash.ts";
import { refuseInputs } from "../io/guarded_inputs.ts";
import { outsideStaging } from "../io/outside_staging.ts";
import { stageDirectory, stageFile, type Staging } from "../io/staging.ts";
import { writeFileAtomic } from "../io/write_file_atomic.ts";
import { assertFinite } from "../numbers/finite.ts";
import type { OutputDType } from "../numbers/narrow.ts";
import { openAdapter } from "../open_adapter.ts";
import { conversionCard } from "./card.ts";
import { inNamesOf } from "./names.ts";
import { convertedMetadata } from "./provenance.ts";

export interface ConvertOptions {
  readonly to: OutputFormat;
  /** Default: the source's, where it has one of them throughout; else float32. */
  readonly dtype?: OutputDType | undefined;
  /** The base model's folder, which some layouts need: GGUF for its heads, kohya for the names of unknown models. */
  readonly base?: string | undefined;
  /** As in {@linkcode openAdapter}. */
  readonly drop?: readonly string[] | undefined;
  /** As in {@linkcode openAdapter}. */
  readonly expand?: boolean | undefined;
  /** Replace the output if it is an earlier result. */
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a conversion did. */
export interface Conversion {
  readonly output: string;
  readonly from: string;
  readonly to: OutputFormat;
  readonly dtype: OutputDType;
  readonly modules: number;
  /** The largest r. */
  readonly rank: number;
  readonly warnings: readonly Warning[];
}

/**
 * Converts an adapter into another layout, module by module. No ΔW changes beyond the rounding of the output's dtype;
 * the metadata is carried over as far as it holds, and says where the adapter came from. The output is complete or absent.
 *
 * @param output a folder, or for a layout of one file a path that ends in .safetensors or .gguf
 * @throws {FormatError} `output_is_input`; what reading the input and writing the output throw
 */
export async function convertAdapter(
  input: string,
  output: string,
  options: ConvertOptions,
): Promise<Conversion> {
  const base = options.base === undefined ? undefined : await readBaseModel(options.base);
  using source = await openAdapter(input, { drop: options.drop, expand: options.expand, base });
  refuseInputs(output, [input, ...source.files, ...options.base === undefined ? [] : [options.base]]);
  const adapter = await inNamesOf(options.to, source);
  const isFile = /^\.(safetensors|gguf)$/.test(extname(output));
  if (isFile && !isSingleFile(options.to)) throw needsFolder(options.to, output);
  const force = options.force ?? false;
  const staging = isFile ? await stageFile(output, { force }) : await stageDirectory(output, { force });
  try {
    const conversion = await convertInto(staging, !isFile, adapter, base, output, options);
    await staging.commit();
    return conversion;
  } catch (error) {
    await staging.discard();
    throw outsideStaging(error, staging.path, output);
  }
}

async function convertInto(
  { path }: Staging,
  isFolder: boolean,
  adapter: Adapter,
  base: BaseModel | undefined,
  output: string,
  { to, dtype: wanted, signal }: ConvertOptions,
): Promise<Conversion> {
  const modules = [...adapter.modules.values()];
  const dtype = wanted ?? commonDType(modules);
  const hash = await sha256File(adapter.files.at(-1)!);
  const spec = specOf(adapter, modules, dtype, base, convertedMetadata(adapter, to, hash), to);
  const writer = await createAdapterWriter(to, path, spec);
  try {
    for (const { name, a, b } of modules) {
      signal?.throwIfAborted();
      const [valuesA, valuesB] = [await a.readFloat32(), await b.readFloat32()];
      // The writer would refuse them too, but name its own file.
      assertFinite(valuesA, `${adapter.path} ${name} lora_A`);
      assertFinite(valuesB, `${adapter.path} ${name} lora_B`);
      await writer.write(name, valuesA, valuesB);
    }
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
  const { warnings } = adapter;
  if (isFolder) {
    const notes = warnings.map(({ message }) => message);
    const facts = { source: adapter, format: to, dtype, rank: spec.rank, modules: modules.length, hash };
    await writeFileAtomic(join(path, "README.md"), conversionCard({ ...facts, warnings: notes }));
  }
  return {
    output,
    from: adapter.format,
    to,
    dtype,
    modules: modules.length,
    rank: spec.rank,
    warnings,
  };
}

function specOf(
  adapter: Adapter,
  modules: readonly LoraModule[],
  dtype: OutputDType,
  base: BaseModel | undefined,
  metadata: Record<string, string>,
  to: OutputFormat,
): AdapterSpec {
  const isSameLayout = adapter.format === to;
  return {
    modules: modules.map(({ name, inFeatures, outFeatures, rank, scale, form, keys }) => ({
      name,
      inFeatures,
      outFeatures,
      rank,
      scale,
      form,
      keys: isSameLayout ? keys : undefined,
    })),
    rank: modules.reduce((most, { rank }) => Math.max(most, rank), 1),
    dtype,
    baseModel: adapter.baseModel ?? base?.name,
    metadata,
    taskType: adapter.taskType,
    fanInFanOut: adapter.fanInFanOut,
    base,
  };
}

const OUTPUT_DTYPES: Readonly<Record<string, OutputDType>> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
};

/** The dtype that all factors have, where it can be written; float32 holds all others best. */
function commonDType(modules: readonly LoraModule[]): OutputDType {
  const found = new Set(modules.flatMap(({ a, b }) => [a.dtype, b.dtype]));
  const [only] = found;
  return (found.size === 1 && OUTPUT_DTYPES[only!]) || "float32";
}
