import { existsSync } from "node:fs";
import {
  type Adapter,
  type BaseModel,
  createAdapterWriter,
  openAdapter,
  outsideStaging,
  refuseForeign,
  type ServingReport,
  servingReport,
  stageDirectory,
} from "@lora-loom/formats";
import { readModelShapes } from "@lora-loom/model";
import { type Device, openDevice, type OpenDeviceOptions } from "@lora-loom/tensor";
import { MergeError, throwIfCancelled } from "../errors.ts";
import { requireResidentWeights } from "../memory/gradients.ts";
import type { Method } from "../methods/method.ts";
import { METHODS } from "../methods/registry.ts";
import { type Plan, planMerge } from "../plan/plan.ts";
import { asksForRefinement, type Recipe } from "../recipe/recipe.ts";
import { CollectingWriter } from "../refine/collecting_writer.ts";
import { type RefinedMerge, refineMerge } from "../refine/refine_merge.ts";
import type { InputRecord } from "../report/record.ts";
import type { MergeSummary } from "../report/summary.ts";
import { writeReports } from "../report/write_reports.ts";
import { identityOf } from "../resume/identity.ts";
import { NO_JOURNAL } from "../resume/step_journal.ts";
import { Unfinished } from "../resume/unfinished.ts";
import { adapterSpec } from "./adapter_spec.ts";
import { planWithChosenRanks } from "./choose_ranks.ts";
import { baseModelOf, checkOutputPath, closeAdapters, hashInputs, openAdapters } from "./inputs.ts";
import { peakResidentBytes } from "./memory.ts";
import { mergeModel } from "./merge_model.ts";
import { mergeModules } from "./merge_modules.ts";
import type { MergedModules, MergeRun, MergeWatch } from "./merge_run.ts";
import { type ProgressListener, ProgressMeter } from "./progress.ts";
import { type Settled, settled, unwrap } from "./settled.ts";
import { Stopwatch } from "./stopwatch.ts";
import { recordOf, secondsOf, summarise } from "./summarise.ts";

/** How to run a merge, apart from what the recipe says. */
export interface MergeOptions {
  /** Replace the output if it is an earlier result. */
  readonly force?: boolean;
  /** Cancels the merge: nothing is left behind but its finished steps, where they are kept. */
  /** Where the recipe was read, if from a file: the output may not replace it. */
  readonly recipeFile?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: ProgressListener;
  /** Start from the beginning, whatever an interrupted run of this merge left beside its output. */
  readonly fresh?: boolean;
  /** Whether to keep finished steps beside the output until it is in its place, so that a merge can go on. Default true. */
  readonly resumable?: boolean;
  /** Compute on this open device instead of opening the recipe's; it stays open. */
  readonly device?: Device;
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
  checkOutputPath(recipe, options.recipeFile);
  // Staging refuses an existing target too, but only after the inputs were read.
  if (options.force) await refuseForeign(recipe.output.path, "folder");
  else refuseExisting(recipe.output.path);
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
  const watch: MergeWatch = new Stopwatch();
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
    throw await unfinished.leave(outsideStaging(error, staging.path, recipe.output.path));
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
  const { recipe, writer, watch, meter } = run;
  const refined = asksForRefinement(recipe) ? await mergeAndRefine(run) : undefined;
  const merged = refined?.merged ?? await mergeWith(run);
  await watch.time("write", () => writer.finish());
  onProgress?.({ type: "finish", elapsed: meter.elapsed });
  const inputs = await unwrap(hashing);
  const refinement = refined?.record;
  const summary = summarise(run, merged, refinement, unfinished.taken);
  const serving = await servingOf(path, base);
  const record = recordOf(run, merged, summary, { inputs, serving, refinement });
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

/** Where the adapter that was written loads; reading it shows that it can be. */
async function servingOf(path: string, base: BaseModel | undefined): Promise<ServingReport> {
  using written = await openAdapter(path, { base });
  return servingReport(written);
}
