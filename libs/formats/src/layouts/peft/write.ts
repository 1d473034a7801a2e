import { promises as fs } from "node:fs";
import { join } from "node:path";
import type { AdapterWriter } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { writeFileAtomic } from "../../io/write_file_atomic.ts";
import { narrow, type OutputDType, STORED_NAME } from "../../numbers/narrow.ts";
import { createSafetensorsWriter, type SafetensorsWriter } from "../../safetensors/write.ts";
import { PREFIX } from "./keys.ts";
import { targetsOf } from "./write_targets.ts";

/** What a PEFT folder is to hold. */
export interface PeftSpec {
  readonly modules: readonly {
    readonly name: string;
    readonly inFeatures: number;
    readonly outFeatures: number;
  }[];
  /** r of every module; modules of smaller rank are padded with zeros. */
  readonly rank: number;
  readonly dtype: OutputDType;
  readonly baseModel?: string | undefined;
  /** Strings for the header of the weight file, beside `format: pt`. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** The task as PEFT names it, such as `CAUSAL_LM`. */
  readonly taskType?: string | undefined;
  /** Default: the modules' last names where these cover whole layers from the first on, else their full names. */
  readonly targetModules?: readonly string[] | undefined;
  /** The base stores its weights as [in, out], as GPT-2's `Conv1D` does. */
  readonly fanInFanOut?: boolean | undefined;
}

const WEIGHTS = "adapter_model.safetensors";
const CONFIG = "adapter_config.json";

/**
 * Creates a PEFT adapter in a folder that exists: one rank for all modules, `lora_alpha` = r so that the scale is 1,
 * no rslora, no patterns, no biases, no saved modules. PEFT from 0.10 on, vLLM and llama.cpp load it. Stage the folder
 * with `stageDirectory` to have it complete or not at all.
 *
 * @throws {FormatError} `invalid_rank`, `no_modules`, `duplicate_key`, `target_exists`, `disk_full`, …
 */
export async function createPeftWriter(directory: string, spec: PeftSpec): Promise<AdapterWriter> {
  checkSpec(spec, directory);
  const dtype = STORED_NAME[spec.dtype];
  const entries = spec.modules.flatMap(({ name, inFeatures, outFeatures }) => [
    { name: factorKey(name, "A"), dtype, shape: [spec.rank, inFeatures] },
    { name: factorKey(name, "B"), dtype, shape: [outFeatures, spec.rank] },
  ]);
  const metadata = { ...spec.metadata, format: "pt" };
  const weights = await createSafetensorsWriter(join(directory, WEIGHTS), entries, metadata);
  return new PeftWriter(directory, spec, weights);
}

/** The configuration that {@linkcode createPeftWriter} writes: nothing that an older PEFT would not know. */
export function peftConfig(spec: PeftSpec): Record<string, unknown> {
  return {
    alpha_pattern: {},
    auto_mapping: null,
    base_model_name_or_path: spec.baseModel ?? null,
    bias: "none",
    fan_in_fan_out: spec.fanInFanOut ?? false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: spec.rank,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: "LORA",
    r: spec.rank,
    rank_pattern: {},
    revision: null,
    target_modules: [...spec.targetModules ?? targetsOf(spec.modules.map(({ name }) => name))].sort(),
    task_type: spec.taskType ?? null,
    use_dora: false,
    use_rslora: false,
  };
}

function factorKey(module: string, factor: "A" | "B"): string {
  return `${PREFIX}${module}.lora_${factor}.weight`;
}

function checkSpec({ modules, rank }: PeftSpec, directory: string): void {
  if (!Number.isSafeInteger(rank) || rank < 1) {
    throw new FormatError(
      "invalid_rank",
      `the rank is ${rank}, at least 1 was expected`,
      "Choose a positive rank.",
      directory,
    );
  }
  if (modules.length === 0) {
    throw new FormatError(
      "no_modules",
      "an adapter without modules was asked for",
      "Widen the module filters.",
      directory,
    );
  }
}

class PeftWriter implements AdapterWriter {
  readonly #directory: string;
  readonly #spec: PeftSpec;
  readonly #weights: SafetensorsWriter;
  readonly #modules: ReadonlyMap<string, PeftSpec["modules"][number]>;

  constructor(directory: string, spec: PeftSpec, weights: SafetensorsWriter) {
    this.#directory = directory;
    this.#spec = spec;
    this.#weights = weights;
    this.#modules = new Map(spec.modules.map((module) => [module.name, module]));
  }

  async write(name: string, a: Float32Array | Float64Array, b: Float32Array | Float64Array): Promise<void> {
    const where = `${join(this.#directory, WEIGHTS)} ${name}`;
    const module = this.#modules.get(name);
    if (!module) {
      throw new FormatError(
        "module_not_found",
        `the module ${name} was not announced`,
        "Announce every module.",
        where,
      );
    }
    const rank = this.#rankOf(module, a, b, where);
    const paddedA = padRows(a, module.inFeatures, this.#spec.rank);
    const paddedB = padColumns(b, module.outFeatures, rank, this.#spec.rank);
    await this.#weights.write(factorKey(name, "A"), narrow(paddedA, this.#spec.dtype, `${where} lora_A`));
    await this.#weights.write(factorKey(name, "B"), narrow(paddedB, this.#spec.dtype, `${where} lora_B`));
  }

  async finish(): Promise<void> {
    await this.#weights.finish();
    await writeFileAtomic(
      join(this.#directory, CONFIG),
      `${JSON.stringify(peftConfig(this.#spec), null, 2)}\n`,
    );
  }

  async abort(): Promise<void> {
    await this.#weights.abort();
    await fs.rm(join(this.#directory, CONFIG), { force: true });
  }

  #rankOf(
    { inFeatures, outFeatures }: PeftSpec["modules"][number],
    a: ArrayLike<number>,
    b: ArrayLike<number>,
    where: string,
  ): number {
    const rank = a.length / inFeatures;
    if (Number.isInteger(rank) && rank <= this.#spec.rank && b.length === outFeatures * rank) return rank;
    throw new FormatError(
      "shape_mismatch",
      `A has ${a.length} and B ${b.length} values; expected r·${inFeatures} and ${outFeatures}·r with r ≤ ${this.#spec.rank}`,
      "Pass A as [r, in] and B as [out, r].",
      where,
    );
  }
}

type Floats = Float32Array | Float64Array;

function zeros(like: Floats, length: number): Floats {
  return like instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
}

function padRows(a: Floats, inFeatures: number, rank: number): Floats {
  if (a.length === rank * inFeatures) return a;
  const padded = zeros(a, rank * inFeatures);
  padded.set(a);
  return padded;
}

function padColumns(b: Floats, outFeatures: number, from: number, to: number): Floats {
  if (from === to) return b;
  const padded = zeros(b, outFeatures * to);
  for (let row = 0; row < outFeatures; row++) padded.set(b.subarray(row * from, (row + 1) * from), row * to);
  return padded;
}
