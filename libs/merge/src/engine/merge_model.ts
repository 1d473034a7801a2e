import { MergeError, throwIfCancelled } from "../errors.ts";
import type { MergedFactors, ModelMethod } from "../methods/method.ts";
import type { PlannedModule } from "../plan/plan.ts";
import type { DeltaFigures, ModuleFigures } from "../report/figures.ts";
import { measureDeltas } from "./measure_deltas.ts";
import { disposeFactors, readModule, uploadModule } from "./module_reader.ts";
import { disposeMerged, downloadMerged } from "./module_writer.ts";
import type { MergedModules, MergeRun } from "./merge_run.ts";

/** Runs a method that looks at the whole model, and takes its modules in whatever order they come. */
export async function mergeModel(method: ModelMethod, run: MergeRun): Promise<MergedModules> {
  const { plan, recipe, watch, signal, device } = run;
  const planned = new Map(plan.modules.map((module) => [module.name, module]));
  const figures = new Map<string, ModuleFigures>();
  // What the method does between two modules is its computing; reading happens inside it.
  const result = await watch.time("compute", () =>
    method.merge({
      device,
      plan,
      adapters: run.adapters.map((adapter, index) => ({ adapter, recipe: recipe.adapters[index]! })),
      baseModel: recipe.baseModel,
      parameters: recipe.parameters,
      memory: recipe.memory,
      seed: recipe.seed,
      signal,
      journal: run.journal,
      progress(step) {
        throwIfCancelled(signal, step.stage);
        run.meter.stage(step);
      },
      announce: (needs, weights) => run.meter.needs(needs, weights),
      async write(name, merged) {
        throwIfCancelled(signal, name);
        figures.set(name, await takeModule(expected(name, planned, figures), merged, run));
      },
    }));
  const missing = plan.modules.filter(({ name }) => !figures.has(name));
  if (missing.length > 0) throw contractBroken(method.name, `left out ${missing[0]!.name}`);
  return { modules: plan.modules.map(({ name }) => figures.get(name)!), outcome: result };

  function expected(
    name: string,
    modules: ReadonlyMap<string, PlannedModule>,
    done: ReadonlyMap<string, unknown>,
  ) {
    const module = modules.get(name);
    if (!module || done.has(name)) {
      throw contractBroken(method.name, `wrote ${name} ${module ? "twice" : "unasked"}`);
    }
    return module;
  }
}

function contractBroken(method: string, what: string): MergeError {
  return new MergeError(
    "method_contract",
    `the method ${method} ${what}`,
    "this is a bug of the method: report it",
    method,
    "work",
  );
}

async function takeModule(
  planned: PlannedModule,
  merged: MergedFactors,
  run: MergeRun,
): Promise<ModuleFigures> {
  const { name, inFeatures, outFeatures, pooledRank, rank } = planned;
  try {
    const deltas = merged.deltas ?? await measureAgain(planned, merged, run);
    const host = await downloadMerged(run.device, name, merged);
    await run.watch.time("write", () => run.writer.write(name, host.a, host.b));
    const seconds = run.meter.module(name, planned.bytes);
    return { name, inFeatures, outFeatures, pooledRank, rank, seconds, deltas, method: merged.figures ?? {} };
  } finally {
    disposeMerged(merged);
  }
}

/** The inputs of one module are small: reading them once more is cheaper than keeping all of them. */
async function measureAgain(
  planned: PlannedModule,
  merged: MergedFactors,
  run: MergeRun,
): Promise<DeltaFigures> {
  const sources = uploadModule(run.device, await readModule(planned, run.recipe));
  try {
    return await measureDeltas(run.device, sources, merged);
  } finally {
    disposeFactors(sources);
  }
}
