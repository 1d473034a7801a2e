import { throwIfCancelled } from "../errors.ts";
import type { ModuleContext, ModuleMethod } from "../methods/method.ts";
import type { PlannedModule } from "../plan/plan.ts";
import type { Recipe } from "../recipe/recipe.ts";
import type { ModuleFigures } from "../report/figures.ts";
import { measureDeltas } from "./measure_deltas.ts";
import { disposeFactors, type RawModule, readModule, uploadModule } from "./module_reader.ts";
import { disposeMerged, downloadMerged, type HostFactors } from "./module_writer.ts";
import type { MergedModules, MergeRun } from "./run_merge.ts";

/** Streams the plan's modules through a module-wise method: while one is merged, the next is read. */
export async function mergeModules(method: ModuleMethod, run: MergeRun): Promise<MergedModules> {
  const { plan, recipe, watch, signal, writer, meter } = run;
  const modules: ModuleFigures[] = [];
  let next = startReading(plan.modules[0], recipe);
  for (const [index, planned] of plan.modules.entries()) {
    throwIfCancelled(signal, planned.name);
    const raw = await watch.time("read", () => next!);
    next = startReading(plan.modules[index + 1], recipe);
    const { host, ...measured } = await watch.time("compute", () => mergeOne(method, raw, run));
    await watch.time("write", () => writer.write(planned.name, host.a, host.b));
    const seconds = meter.module(planned.name, planned.bytes);
    const { name, inFeatures, outFeatures, pooledRank, rank } = planned;
    modules.push({ name, inFeatures, outFeatures, pooledRank, rank, seconds, ...measured });
  }
  return { modules, outcome: {} };
}

function startReading(planned: PlannedModule | undefined, recipe: Recipe): Promise<RawModule> | undefined {
  const reading = planned && readModule(planned, recipe);
  // A failure counts when its turn comes, not while another module is being merged.
  reading?.catch(() => {});
  return reading;
}

interface MergedOne extends Pick<ModuleFigures, "deltas" | "method"> {
  readonly host: HostFactors;
}

/** What a method is told of a module. */
export function moduleContext(
  { name, rank }: PlannedModule,
  { recipe, device, plan }: Pick<MergeRun, "recipe" | "device" | "plan">,
): ModuleContext {
  return {
    module: name,
    device,
    parameters: recipe.parameters,
    rank,
    seed: recipe.seed,
    modules: plan.modules.map((planned) => planned.name),
    adapters: recipe.adapters.length,
  };
}

async function mergeOne(
  method: ModuleMethod,
  raw: RawModule,
  run: MergeRun,
): Promise<MergedOne> {
  const { device } = run;
  const { name } = raw.planned;
  const sources = uploadModule(device, raw);
  try {
    const merged = await method.merge(sources, moduleContext(raw.planned, run));
    try {
      const deltas = merged.deltas ?? await measureDeltas(device, sources, merged);
      return { host: await downloadMerged(device, name, merged), deltas, method: merged.figures ?? {} };
    } finally {
      disposeMerged(merged);
    }
  } finally {
    disposeFactors(sources);
  }
}
