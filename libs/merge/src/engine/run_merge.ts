import { existsSync } from "node:fs";
import {
  type Adapter,
  type AdapterSpec,
  type AdapterWriter,
  type BaseModel,
  createAdapterWriter,
  openAdapter,
  type ServingReport,
  servingReport,
  stageDirectory,
} from "@lora-loom/formats";
import { readModelShapes } from "@lora-loom/model";
import { type Device, openDevice, type OpenDeviceOptions } from "@lora-loom/tensor";
import { MergeError, throwIfCancelled } from "../errors.ts";
import type { Method, MethodOutcome } from "../methods/method.ts";
import { METHODS } from "../methods/registry.ts";
import { type Plan, planMerge } from "../plan/plan.ts";
import { requireResidentWeights } from "../memory/gradients.ts";
import { asksForRefinement, type Recipe } from "../recipe/recipe.ts";
import { type ModuleFigures, qualityOf } from "../report/figures.ts";
import { writeReports } from "../report/write_reports.ts";
import { CollectingWriter } from "../refine/collecting_writer.ts";
import { type RefinedMerge, refineMerge } from "../refine/refine_merge.ts";
import type { RefinementRecord } from "../refine/report.ts";
import { identityOf } from "../resume/identity.ts";
import { NO_JOURNAL, type StepJournal } from "../resume/step_journal.ts";
import { Unfinished } from "../resume/unfinished.ts";
import type { InputRecord } from "../report/record.ts";
import type { MergeSummary } from "../report/summary.ts";
import { VERSIONS } from "../versions.ts";
import { planWithChosenRanks } from "./choose_ranks.ts";
import { baseModelOf, checkOutputPath, closeAdapters, hashInputs, openAdapters } from "./inputs.ts";
import { peakResidentBytes } from "./memory.ts";
import { mergeModel } from "./merge_model.ts";
import { mergeModules } from "./merge_modules.ts";
import { type ProgressListener, ProgressMeter } from "./progress.ts";
import { Stopwatch } from "./stopwatch.ts";

/** How to run a merge, apart from what the recipe says. */
export interface MergeOptions {
  /** Replace the output if it exists. */
  readonly force?: boolean;
  /** Cancels the merge: nothing is left behind but its finished steps, where they are kept. */
  readonly signal?: AbortSignal;
  readonly onProgress?: ProgressListener;
  /** Start from the beginning, whatever an interrupted run of this merge left beside its output. */
  readonly fresh?: boolean;
  /** Whether to keep finished steps beside the output until it is in its place, so that a merge can go on. Default true. */
  readonly resumable?: boolean;
  /** Compute on this open device instead of opening the recipe's; it stays open. */
  readonly device?: Device;
}

/** What both kinds of methods run in. */
export interface MergeRun {
  readonly recipe: Recipe;
  readonly method: Method;
  readonly plan: Plan;
  readonly adapters: readonly Adapter[];
  readonly device: Device;
  readonly writer: AdapterWriter;
  readonly watch: Stopwatch<"read" | "compute" | "write">;
  readonly meter: ProgressMeter;
  readonly signal: AbortSignal | undefined;
  /** Finished steps of this merge, for methods that work for long. */
  readonly journal: (deciding: Readonly<Record<string, unknown>>) => Promise<StepJournal>;
}

/** What merging all modules gave. */
export interface MergedModules {
  readonly modules: readonly ModuleFigures[];
  /** What a whole-model method tells besides; empty for the others. */
  readonly outcome: MethodOutcome;
}

/**
 * Runs a recipe: reads the adapters module by module, merges them on the device and writes the folder with the merged
 * adapter, `loom.json`, `README.md` and `report.html`. The folder appears complete or not at all, and the same inputs on
 * the same device give the same bytes of `adapter_model.safetensors`, also when the merge was interrupted and goes on. Memory is bounded
 * by the largest module.
 *
 * @throws {MergeError | FormatError | TensorError} with code, message, fix and where; {@linkcode describeError} brings
 * them and everything else into one form
 */
export async function runMerge(recipe: Recipe, options: MergeOptions = {}): Promise<MergeSummary> {
  const method = METHODS.get(recipe.method)!;
  checkOutputPath(recipe);
  // Staging refuses an existing target too, but only after the inputs were read.
  if (!options.force) refuseExisting(recipe.output.path);
  const adapters = await openAdapters(recipe);
  try {
    const planned = planMerge(recipe, adapters, method);
    const device = options.device ?? await openDevice(deviceOptions(recipe));
    try {
      const plan = await planWithChosenRanks(planned, method, recipe, device, options.signal);
      return await mergeInto(recipe, method, plan, adapters, device, options);
    } finally {
      if (device !== options.device) await device.dispose();
    }
  } finally {
    closeAdapters(adapters);
  }
}

/** A limit holds for buffers in use and for those kept for their next use, together. */
function deviceOptions({ device, memory: { deviceGib } }: Recipe): OpenDeviceOptions {
  return { device, ...(deviceGib === undefined ? {} : { memoryBudgetBytes: deviceGib * 2 ** 30 }) };
}

function refuseExisting(path: string): void {
  if (!existsSync(path)) return;
  throw new MergeError(
    "target_exists",
    `${path} exists already`,
    "name another folder with --output, or add --force to replace it",
    path,
  );
}

async function mergeInto(
  recipe: Recipe,
  method: Method,
  plan: Plan,
  adapters: readonly Adapter[],
  device: Device,
  options: MergeOptions,
): Promise<MergeSummary> {
  const { signal, onProgress } = options;
  const { modules, rank, warnings } = plan;
  const watch = new Stopwatch<"read" | "compute" | "write">();
  const work = modules.reduce((sum, { bytes }) => sum + bytes, 0);
  const meter = new ProgressMeter(modules.length, work, onProgress);
  throwIfCancelled(signal);
  const staging = await stageDirectory(recipe.output.path, {
    force: options.force ?? false,
    exclusive: true,
  });
  const abandoned = new AbortController();
  const unfinished = new Unfinished(recipe.output.path, resultBytes(plan), (note) => meter.note(note));
  try {
    if (options.fresh) await unfinished.forget();
    onProgress?.({ type: "start", modules: modules.length, rank, device: device.info.name, warnings });
    const hashing = settled(hashInputs(recipe, adapters, abandoned.signal));
    const base = await baseModelOf(recipe);
    const spec = adapterSpec(recipe, plan, adapters, base);
    const writer = await createAdapterWriter(recipe.output.format, staging.path, spec);
    const isResumable = keepsSteps(recipe, method, options);
    const journal = async (deciding: Readonly<Record<string, unknown>>) => {
      if (!isResumable) return NO_JOURNAL;
      const inputs = await unwrap(hashing);
      return await unfinished.open(await identityOf({ recipe, plan, inputs, device: device.info, deciding }));
    };
    const run: MergeRun = { recipe, method, plan, adapters, device, writer, watch, meter, signal, journal };
    const folder: ResultFolder = { path: staging.path, base, hashing, unfinished };
    const { summary, refined } = await fillFolder(run, folder, onProgress);
    throwIfCancelled(signal);
    await watch.time("write", () => staging.commit());
    if (refined || isResumable) await unfinished.remove();
    if (refined?.failure) throw refined.failure;
    return { ...summary, seconds: secondsOf(watch), peak_rss_bytes: peakResidentBytes() };
  } catch (error) {
    abandoned.abort();
    await staging.discard();
    throw await unfinished.leave(error);
  }
}

/** Where a result is put together, and what its reports tell beside the merge. */
interface ResultFolder {
  readonly path: string;
  readonly base: BaseModel | undefined;
  readonly hashing: Settled<InputRecord[]>;
  readonly unfinished: Unfinished;
}

/** Merges, refines where the recipe asks for it, and fills the folder: the adapter, then the reports. */
async function fillFolder(
  run: MergeRun,
  { path, base, hashing, unfinished }: ResultFolder,
  onProgress: ProgressListener | undefined,
): Promise<{ readonly summary: MergeSummary; readonly refined: RefinedMerge | undefined }> {
  const { recipe, plan, device, writer, watch, meter } = run;
  const refined = asksForRefinement(recipe) ? await mergeAndRefine(run) : undefined;
  const merged = refined?.merged ?? await mergeWith(run);
  await watch.time("write", () => writer.finish());
  onProgress?.({ type: "finish", elapsed: meter.elapsed });
  const inputs = await unwrap(hashing);
  const summary = {
    ...summarise(recipe, plan, device, watch, merged, refined?.record),
    ...(unfinished.taken > 0 ? { resumed: { steps: unfinished.taken } } : {}),
  };
  const serving = await servingOf(path, base);
  const record = recordOf(recipe, plan, device, summary, merged, inputs, serving, refined?.record);
  await watch.time("write", () => writeReports(path, record));
  return { summary, refined };
}

/** For reports and headers. */
const BYTES_BESIDE_WEIGHTS = 2 ** 20;

/** What a merged adapter takes in float32, at most. */
function resultBytes({ modules }: Plan): number {
  return modules.reduce(
    (sum, { rank, inFeatures, outFeatures }) => sum + 4 * rank * (inFeatures + outFeatures),
    BYTES_BESIDE_WEIGHTS,
  );
}

/** Whether a merge works so long that its steps are kept: where the method runs the base model. */
function keepsSteps({ adapters }: Recipe, { needs }: Method, { resumable = true }: MergeOptions): boolean {
  return resumable && needs.calibration && adapters.every(({ capture }) => capture === undefined);
}

function mergeWith(run: MergeRun): Promise<MergedModules> {
  const { method } = run;
  return method.kind === "module" ? mergeModules(method, run) : mergeModel(method, run);
}

/** Merges into memory, refines, and writes what comes out. */
async function mergeAndRefine(run: MergeRun): Promise<RefinedMerge> {
  const { recipe: { baseModel, memory }, device } = run;
  // Before the merge rather than after it.
  requireResidentWeights("refine", device, await readModelShapes(baseModel!), memory, baseModel!);
  const collected = new CollectingWriter();
  const merged = await mergeWith({ ...run, writer: collected });
  const refined = await run.watch.time("compute", () => refineMerge(run, merged, collected.factors));
  for (const { name } of run.plan.modules) {
    const { a, b } = refined.factors.get(name)!;
    await run.watch.time("write", () => run.writer.write(name, a, b));
  }
  return refined;
}

/** The outcome of work that runs beside other work, kept so that its failure is not reported before it is looked at. */
type Settled<T> = Promise<PromiseSettledResult<T>>;

function settled<T>(work: Promise<T>): Settled<T> {
  return Promise.allSettled([work]).then(([result]) => result);
}

async function unwrap<T>(work: Settled<T>): Promise<T> {
  const result = await work;
  if (result.status === "rejected") throw result.reason;
  return result.value;
}

/** The one value that all give, if they do. */
function agreed<T>(values: readonly T[]): T | undefined {
  return new Set(values).size === 1 ? values[0] : undefined;
}

/** Where the adapter that was written loads; reading it shows that it can be. */
async function servingOf(path: string, base: BaseModel | undefined): Promise<ServingReport> {
  using written = await openAdapter(path, { base });
  return servingReport(written);
}

/** Provenance that other programs look for, in the layouts whose files carry metadata of that kind. */
function metadataOf({ method, adapters, output }: Recipe): Record<string, string> | undefined {
  if (output.format === "peft" || output.format === "mlx") return undefined;
  const names = adapters.map(({ name }) => name);
  return {
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.title": names.join(" + "),
    "modelspec.merged_from": names.join(", "),
    "loom.method": method,
  };
}

/** What the writer of the merged adapter must know. */
export function adapterSpec(
  recipe: Recipe,
  plan: Plan,
  adapters: readonly Adapter[],
  base?: BaseModel,
): AdapterSpec {
  return {
    modules: plan.modules,
    rank: plan.rank,
    dtype: recipe.output.dtype,
    baseModel: plan.baseModelName,
    taskType: agreed(adapters.map(({ taskType }) => taskType)),
    fanInFanOut: adapters[0]!.fanInFanOut,
    metadata: metadataOf(recipe),
    base,
  };
}

function secondsOf(watch: Stopwatch<"read" | "compute" | "write">): MergeSummary["seconds"] {
  return {
    total: watch.total,
    read: watch.seconds("read"),
    compute: watch.seconds("compute"),
    write: watch.seconds("write"),
  };
}

function summarise(
  recipe: Recipe,
  plan: Plan,
  device: Device,
  watch: Stopwatch<"read" | "compute" | "write">,
  merged: MergedModules,
  refinement: RefinementRecord | undefined,
): MergeSummary {
  return {
    output: recipe.output.path,
    method: recipe.method,
    adapters: recipe.adapters.map(({ name, path, weight }) => ({ name, path, weight })),
    modules: plan.modules.length,
    rank: plan.rank,
    device: { name: device.info.name, backend: device.info.backend },
    seconds: secondsOf(watch),
    peak_rss_bytes: peakResidentBytes(),
    peak_gpu_bytes: device.info.backend === "cpu" ? 0 : device.memory.peakBytes,
    ...(merged.outcome.predicted ? { predicted: merged.outcome.predicted } : {}),
    quality: {
      ...qualityOf(merged.modules.map(({ deltas }) => deltas), recipe.adapters.map(({ name }) => name)),
      ...merged.outcome.quality,
    },
    ...(refinement
      ? {
        refinement: {
          steps_done: refinement.steps_done,
          kept_step: refinement.kept_step,
          first_loss: refinement.losses[0] ?? null,
          last_loss: refinement.losses.at(-1) ?? null,
          agreement_before: refinement.agreement[0]?.mean ?? null,
        },
      }
      : {}),
    warnings: [...plan.warnings, ...merged.outcome.warnings ?? []],
  };
}

function recordOf(
  recipe: Recipe,
  plan: Plan,
  device: Device,
  summary: MergeSummary,
  merged: MergedModules,
  inputs: readonly InputRecord[],
  serving: ServingReport,
  refinement: RefinementRecord | undefined,
) {
  return {
    recipe,
    rank: plan.rank,
    baseModelName: plan.baseModelName,
    inputs,
    versions: VERSIONS,
    device: device.info,
    seconds: summary.seconds,
    quality: summary.quality,
    modules: merged.modules,
    method: merged.outcome.figures ?? {},
    warnings: summary.warnings,
    refinement,
    resumed: summary.resumed,
    serving,
    created: new Date().toISOString(),
  };
}
