import {
  type AdaptiveWeights,
  type CapturedOptions,
  type CapturedTask,
  type SiteReport,
  solveCaptured,
  type SolvedCapture,
} from "@lora-loom/iteris";
import { add } from "@lora-loom/tensor";
import { rankOptions } from "../calibrated/parameters.ts";
import { requirePositiveWeight } from "../calibrated/positive_weights.ts";
import { siteFigures } from "../calibrated/site_figures.ts";
import { disposeFactors, readModule, uploadModule } from "../engine/module_reader.ts";
import { MergeError, throwIfCancelled } from "../errors.ts";
import type { MethodOutcome, ModelJob } from "../methods/method.ts";
import type { PlannedModule } from "../plan/plan.ts";
import { BaseWeightReader } from "./base_weight.ts";
import { capturedInputs } from "./captured_inputs.ts";
import { type Captures, openCaptures } from "./open_captures.ts";

/** The first solve of IterIS from what the modules read when the model ran elsewhere, one module in memory at a time. */
export async function mergeCaptured(job: ModelJob): Promise<MethodOutcome> {
  const { plan, parameters, baseModel } = job;
  for (const { recipe } of job.adapters) requirePositiveWeight(recipe);
  const adaptiveWeights = chooseWeights(job);
  using captures = await openCaptures(job);
  using base = adaptiveWeights === "full" ? await BaseWeightReader.open(baseModel!) : undefined;
  base?.check(plan.modules);
  const options: CapturedOptions = {
    alpha: parameters.alpha as number,
    adaptiveWeights,
    ...rankOptions(parameters),
  };
  const errors = new MeanErrors();
  for (const [done, planned] of plan.modules.entries()) {
    throwIfCancelled(job.signal, planned.name);
    job.progress({ stage: planned.name, done, total: plan.modules.length });
    const { delta, report } = await solveModule(job, planned, captures, base, options);
    errors.add(report);
    await job.write(planned.name, { ...delta, figures: siteFigures(report) });
  }
  return {
    figures: { passes: 1, alpha: parameters.alpha as number },
    quality: { output_error: errors.mean() },
    warnings: baseModel === undefined && parameters.adaptive_weights === undefined ? [WITHOUT_BASE] : [],
  };
}

/** The choice of the authors' code where it can be made, else that of the paper's text. */
function chooseWeights({ parameters, baseModel }: ModelJob): AdaptiveWeights {
  const asked = parameters.adaptive_weights as AdaptiveWeights | undefined;
  if (asked === "full" && baseModel === undefined) {
    throw new MergeError(
      "base_weights_needed",
      "adaptive_weights: full reads the base weights W0, and the recipe names no base_model",
      "add base_model: path/to/the/model/folder, or set adaptive_weights to delta",
      "parameters.adaptive_weights",
    );
  }
  return asked ?? (baseModel === undefined ? "delta" : "full");
}

const WITHOUT_BASE = {
  code: "delta_weights",
  message:
    "no base_model is named, so the tasks are weighed by their deltas alone (adaptive_weights: delta) instead of with the base weights",
  where: "parameters.adaptive_weights",
};

/** Reads factors, inputs and base weight of one module, and solves it. */
async function solveModule(
  job: ModelJob,
  planned: PlannedModule,
  captures: Captures,
  base: BaseWeightReader | undefined,
  options: CapturedOptions,
): Promise<SolvedCapture> {
  const { device } = job;
  using owned = new DisposableStack();
  const recipes = job.adapters.map(({ recipe }) => recipe);
  const sources = uploadModule(device, await readModule(planned, { adapters: recipes }));
  owned.defer(() => disposeFactors(sources));
  const tasks: CapturedTask[] = [];
  for (const [index, { name, weight }] of recipes.entries()) {
    const source = sources.find(({ adapter }) => adapter === index);
    const scaled = source && owned.use(add(source.b, source.b, { alpha: source.scale, beta: 0 }));
    tasks.push({
      name,
      weight,
      delta: source && { a: source.a, b: scaled! },
      inputs: await capturedInputs(device, captures.module(index, planned), captures.paths[index]!),
    });
  }
  const baseWeight = base && owned.use(await base.read(device, planned));
  const { name: module, inFeatures, outFeatures } = planned;
  return await solveCaptured(device, { module, inFeatures, outFeatures, tasks, baseWeight }, options);
}

/** Means over modules and adapters of the relative output errors. */
class MeanErrors {
  #count = 0;
  #sums = { merged: 0, sum: 0, mean: 0 };

  add({ tasks }: SiteReport): void {
    for (const { errors, hasModule } of tasks) {
      // Where an adapter lacks the module there is no output to be relative to.
      if (!hasModule) continue;
      this.#count++;
      for (const key of ["merged", "sum", "mean"] as const) this.#sums[key] += errors[key];
    }
  }

  mean(): { merged: number; sum: number; mean: number } {
    const { merged, sum, mean } = this.#sums;
    return { merged: merged / this.#count, sum: sum / this.#count, mean: mean / this.#count };
  }
}
