import { type Adapter } from "@lora-loom/formats";
import {
  type BaseModel,
  type Deltas,
  disposeDeltas,
  loadDeltas,
  openModel,
  type OpenModelOptions,
  openTokenizer,
  type Tokenizer,
} from "@lora-loom/model";
import { compileAhead } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";
import type { ModelJob } from "../methods/method.ts";
import { requirePositiveWeight } from "./positive_weights.ts";

/** One adapter of the recipe on the device. */
export interface Expert {
  readonly name: string;
  /** Absolute path of its calibration file. */
  readonly calibration: string;
  /** m_i of the objective. */
  readonly weight: number;
  /** Of the modules to merge. */
  readonly deltas: Deltas;
}

/** The base model with everything that runs on it. */
export interface Session extends Disposable {
  readonly model: BaseModel;
  readonly tokenizer: Tokenizer;
  /** The token that ends an answer. */
  readonly eos: number;
  readonly experts: readonly Expert[];
}

/** An adapter as far as it belongs to the plan: filters of the recipe leave modules out. */
function planned(adapter: Adapter, modules: ReadonlySet<string>): Adapter {
  return { ...adapter, modules: new Map([...adapter.modules].filter(([name]) => modules.has(name))) };
}

/**
 * Opens the base model and its tokenizer, and puts every adapter on the device.
 *
 * @param options how to open the model
 * @throws {MergeError} `weight_not_positive`, `no_end_token`; {ModelError} for a model that cannot be run, and
 *   `adapter_mismatch` for adapters of another base
 */
export async function openSession(
  job: Pick<ModelJob, "device" | "baseModel" | "plan" | "adapters">,
  options: OpenModelOptions,
): Promise<Session> {
  using owned = new DisposableStack();
  const model = owned.use(await openModel(job.device, job.baseModel!, options));
  const compiled = takesLongKernels(model) ? compileAhead(job.device) : undefined;
  const tokenizer = await openTokenizer(job.baseModel!);
  if (tokenizer.eosId === undefined) {
    throw new MergeError(
      "no_end_token",
      "the tokenizer names no eos_token, so the end of an answer cannot be known",
      "add eos_token to tokenizer_config.json of the base model",
      job.baseModel,
    );
  }
  const modules = new Set(job.plan.modules.map(({ name }) => name));
  const experts: Expert[] = [];
  for (const { adapter, recipe } of job.adapters) {
    requirePositiveWeight(recipe);
    const deltas = await loadDeltas(job.device, planned(adapter, modules));
    owned.defer(() => disposeDeltas(deltas));
    try {
      model.checkDeltas(deltas);
    } catch (error) {
      throw namingAdapter(error, recipe.path);
    }
    experts.push({ name: recipe.name, calibration: recipe.calibration!, weight: recipe.weight, deltas });
  }
  await compiled;
  const resources = owned.move();
  return { model, tokenizer, eos: tokenizer.eosId, experts, [Symbol.dispose]: () => resources.dispose() };
}

/** Narrower models are merged before the kernels for large products are compiled, and do without them. */
const NARROW = 1024;

function takesLongKernels({ stages }: BaseModel): boolean {
  return stages.some(({ sites }) => sites.some(({ inFeatures }) => inFeatures >= NARROW));
}

/** The model knows the module only; the user has several adapters. */
function namingAdapter(error: unknown, path: string): unknown {
  const { code, message, fix } = error as MergeError;
  return code === "adapter_mismatch" ? new MergeError(code, message, fix, path) : error;
}
