import { differentiable } from "@lora-loom/model";
import { fewKeptOut } from "../calibrated/calibration_warnings.ts";
import { agreementOfSum } from "../calibrated/merge_calibrated.ts";
import { openSession, type Session } from "../calibrated/session.ts";
import { measureDeltas } from "../engine/measure_deltas.ts";
import { disposeFactors, readModule, uploadModule } from "../engine/module_reader.ts";
import { disposeMerged, downloadMerged, type HostFactors } from "../engine/module_writer.ts";
import type { MergedModules, MergeRun } from "../engine/merge_run.ts";
import { describeError, type ErrorReport, MergeError } from "../errors.ts";
import type { MeasuredQuality, ModuleFigures } from "../report/figures.ts";
import { unfinishedPath } from "../resume/unfinished.ts";
import { CheckpointFolder } from "./checkpoint.ts";
import type { HostPair } from "./learner.ts";
import { refineSettings } from "./parameters.ts";
import { refine, type Refined } from "./refine.ts";
import type { RefinementRecord } from "./report.ts";
import { splitEvenly } from "./split_evenly.ts";
import { prepareTasks, type TaskData } from "./task_data.ts";

/** The outcome of the stage after the merge. */
export interface RefinedMerge {
  readonly merged: MergedModules;
  /** What to write, by module. */
  readonly factors: ReadonlyMap<string, HostFactors>;
  readonly record: RefinementRecord;
  /** What went wrong, where something did; the rest is then the merge before refinement. */
  readonly failure?: MergeError;
}

/**
 * Refines the merge that a method left in `factors`. A failure does not lose it: the merge before refinement is then the outcome,
 * together with the failure.
 *
 * @throws {MergeError} `cancelled`
 */
export async function refineMerge(
  run: MergeRun,
  merged: MergedModules,
  factors: ReadonlyMap<string, HostFactors>,
): Promise<RefinedMerge> {
  try {
    return await refined(run, merged, factors, unfinishedPath(run.recipe.output.path));
  } catch (error) {
    const failure = describeError(error);
    if (failure.code === "cancelled") throw error;
    return {
      merged,
      factors,
      record: failedRecord(failure, run),
      failure: keptBefore(failure, run.recipe.output.path),
    };
  }
}

async function refined(
  run: MergeRun,
  merged: MergedModules,
  factors: ReadonlyMap<string, HostFactors>,
  checkpointFolder: string,
): Promise<RefinedMerge> {
  const { recipe, device, plan, signal, meter } = run;
  const settings = refineSettings(recipe.refine!, recipe.parameters);
  const progress = (stage: string, done: number, total: number) => meter.stage({ stage, done, total });
  using session = await openSession({
    device,
    plan,
    baseModel: recipe.baseModel,
    adapters: run.adapters.map((adapter, index) => ({ adapter, recipe: recipe.adapters[index]! })),
  }, { residency: "resident" });
  const model = differentiable(session.model, "refine", "leave refine out of the recipe");
  const calibrated = Number(recipe.parameters.samples ?? 0);
  const tasks = await prepareTasks(session, settings, { calibrated, seed: recipe.seed, signal, progress });
  const warnings = fewKeptOut(
    tasks.map(({ heldOut }) => heldOut),
    settings.agreementPrompts,
    "those it was refined on",
  );
  const result = await refine({
    device,
    model,
    session,
    tasks,
    start: evenStart(run, factors),
    settings,
    seed: recipe.seed,
    checkpoints: (fingerprint) => new CheckpointFolder(checkpointFolder, fingerprint),
    signal,
    progress,
    warn: (code, message) => warnings.push({ code, message, where: checkpointFolder }),
  });
  const agreement = await comparedAgreement(run, session, tasks, merged, result);
  const after = result.factors
    ? await takeFactors(run, merged, result.factors)
    : { factors, modules: merged.modules };
  return {
    merged: {
      modules: after.modules,
      outcome: {
        ...merged.outcome,
        quality: qualityAfter(merged, result, agreement),
        warnings: [...merged.outcome.warnings ?? [], ...warnings],
      },
    },
    factors: after.factors,
    record: result.record,
  };
}

/** Agreement after the refinement beside that of the deltas' sum and mean, which a calibrated method has measured already. */
async function comparedAgreement(
  { signal }: MergeRun,
  session: Session,
  tasks: readonly TaskData[],
  { outcome: { quality } }: MergedModules,
  { after, factors }: Refined,
): Promise<MeasuredQuality["agreement"]> {
  const known = quality?.agreement;
  // Without prompts kept out the refined factors were not measured, and what is known is of the merge before.
  if (!after) return factors ? undefined : known;
  const heldOut = tasks.map((task) => task.heldOut);
  const measure = async (factor: number) => (await agreementOfSum({ signal }, session, heldOut, factor))!;
  return {
    merged: after,
    sum: known?.sum ?? await measure(1),
    mean: known?.mean ?? await measure(1 / tasks.length),
  };
}

function qualityAfter(
  { outcome: { quality } }: MergedModules,
  { factors }: Refined,
  agreement: MeasuredQuality["agreement"],
): MeasuredQuality {
  return {
    // Output errors are of the merge before.
    ...(quality?.output_error && !factors ? { output_error: quality.output_error } : {}),
    ...(agreement ? { agreement } : {}),
    ...(quality?.tried ? { tried: quality.tried } : {}),
  };
}

/** The merge as it would be written, split evenly between its factors. */
function evenStart({ plan }: MergeRun, factors: ReadonlyMap<string, HostFactors>): Map<string, HostPair> {
  return new Map(plan.modules.map(({ name, inFeatures, outFeatures }) => {
    const { a, b } = factors.get(name)!;
    const even = splitEvenly(a, b, a.length / inFeatures);
    return [name, {
      a: { shape: [even.rank, inFeatures], values: even.a },
      b: { shape: [outFeatures, even.rank], values: even.b },
    }];
  }));
}

/** Brings refined factors into the form in which merges are written, and measures them anew. */
async function takeFactors(
  run: MergeRun,
  merged: MergedModules,
  refinedFactors: NonNullable<Refined["factors"]>,
): Promise<{ readonly factors: Map<string, HostFactors>; readonly modules: ModuleFigures[] }> {
  const { plan, device, recipe } = run;
  const factors = new Map<string, HostFactors>();
  const modules: ModuleFigures[] = [];
  for (const [index, planned] of plan.modules.entries()) {
    const { a, b } = refinedFactors.get(planned.name)!;
    const onDevice = { a: device.upload(a.values, a.shape), b: device.upload(b.values, b.shape) };
    const sources = uploadModule(device, await readModule(planned, recipe));
    try {
      factors.set(planned.name, await downloadMerged(device, planned.name, onDevice));
      modules.push({ ...merged.modules[index]!, deltas: await measureDeltas(device, sources, onDevice) });
    } finally {
      disposeFactors(sources);
      disposeMerged(onDevice);
    }
  }
  return { factors, modules };
}

function failedRecord({ code, message }: ErrorReport, { recipe }: MergeRun): RefinementRecord {
  return {
    steps: Number(recipe.refine!.steps),
    steps_done: 0,
    kept_step: 0,
    sequences: {},
    losses: [],
    state_losses: [],
    agreement: [],
    failure: { code, message },
  };
}

/** The failure with what became of the merge. */
function keptBefore({ code, message, fix, where, blame }: ErrorReport, output: string): MergeError {
  return new MergeError(
    code,
    message,
    `${fix}; the merge before refinement was written to ${output}`,
    where,
    blame,
  );
}
