import { DecisionPool, sensibleWorkers } from "../decisions/decision_pool.ts";
import { throwIfCancelled } from "../errors.ts";
import type { ModuleContext, ModuleMethod } from "../methods/method.ts";
import type { Plan, PlannedModule } from "../plan/plan.ts";
import type { Recipe } from "../recipe/recipe.ts";
import type { ModuleFigures } from "../report/figures.ts";
import { measureDeltas } from "./measure_deltas.ts";
import { disposeFactors, type RawModule, readModule, uploadModule } from "./module_reader.ts";
import { disposeMerged, downloadMerged, type HostFactors } from "./module_writer.ts";
import type { MergedModules, MergeRun } from "./merge_run.ts";

/** Pools of fewer units are decided on faster than a thread starts. */
const LEAST_UNITS_FOR_THREADS = 128;

/** Bytes that modules in flight may take together, if more than one is. */
const BYTES_IN_FLIGHT = 320 * 2 ** 20;

/** How many modules are merged at once: as many as there are threads to decide, as far as memory allows. */
function modulesInFlight(plan: Plan): number {
  const largestPool = Math.max(...plan.modules.map(({ pooledRank }) => pooledRank));
  if (largestPool < LEAST_UNITS_FOR_THREADS) return 1;
  return Math.max(1, Math.min(sensibleWorkers(), Math.floor(BYTES_IN_FLIGHT / plan.largestModuleBytes)));
}

/**
 * Streams the plan's modules through a module-wise method. The next module is read while others are merged; with large
 * pools several are merged at once, each deciding in a thread of its own. They are written in the plan's order.
 */
export async function mergeModules(method: ModuleMethod, run: MergeRun): Promise<MergedModules> {
  const { plan, recipe, watch, signal } = run;
  const width = modulesInFlight(plan);
  await using decisions = width > 1 ? new DecisionPool(width) : undefined;
  const modules: ModuleFigures[] = [];
  const inFlight: Flight[] = [];
  let reading = startReading(plan.modules[0], recipe);
  try {
    for (const [index, planned] of plan.modules.entries()) {
      throwIfCancelled(signal, planned.name);
      const raw = await watch.time("read", () => reading!);
      reading = startReading(plan.modules[index + 1], recipe);
      inFlight.push({ planned, merged: quietly(mergeOne(method, raw, run, decisions)) });
      if (inFlight.length >= width) modules.push(await land(inFlight.shift()!, run));
    }
    while (inFlight.length > 0) modules.push(await land(inFlight.shift()!, run));
  } finally {
    // After a failure the others must be done with the device before it is closed.
    await Promise.allSettled(inFlight.map(({ merged }) => merged));
  }
  return { modules, outcome: {} };
}

/** A module that is being merged. */
interface Flight {
  readonly planned: PlannedModule;
  readonly merged: Promise<MergedOne>;
}

/** Marks a failure as one that is looked at later, when its turn comes. */
function quietly<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {});
  return work;
}

function startReading(planned: PlannedModule | undefined, recipe: Recipe): Promise<RawModule> | undefined {
  return planned && quietly(readModule(planned, recipe));
}

/** Waits for a merged module and writes it. */
async function land({ planned, merged }: Flight, run: MergeRun): Promise<ModuleFigures> {
  throwIfCancelled(run.signal, planned.name);
  const { host, ...measured } = await run.watch.time("compute", () => merged);
  await run.watch.time("write", () => run.writer.write(planned.name, host.a, host.b));
  const seconds = run.meter.module(planned.name, planned.bytes);
  const { name, inFeatures, outFeatures, pooledRank, rank } = planned;
  return { name, inFeatures, outFeatures, pooledRank, rank, seconds, ...measured };
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
  decisions: DecisionPool | undefined,
): Promise<MergedOne> {
  const { device } = run;
  const { name } = raw.planned;
  const sources = uploadModule(device, raw);
  try {
    const merged = await method.merge(sources, { ...moduleContext(raw.planned, run), decisions });
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
