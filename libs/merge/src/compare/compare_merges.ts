import { join } from "node:path";
import { mkdir } from "node:fs/promises";
import { type Adapter, type AdapterWriter, createPeftWriter } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import { throwIfCancelled } from "../errors.ts";
import { planWithChosenRanks } from "../engine/choose_ranks.ts";
import { closeAdapters, openAdapters } from "../engine/inputs.ts";
import { measureDeltas } from "../engine/measure_deltas.ts";
import { moduleContext } from "../engine/merge_modules.ts";
import { disposeFactors, readModule, uploadModule } from "../engine/module_reader.ts";
import { disposeMerged, downloadMerged } from "../engine/module_writer.ts";
import { adapterSpec } from "../engine/adapter_spec.ts";
import { runMerge } from "../engine/run_merge.ts";
import type { ModuleMethod, WeightedFactors } from "../methods/method.ts";
import { METHODS } from "../methods/registry.ts";
import { type Plan, planMerge, type PlannedModule } from "../plan/plan.ts";
import { type DeltaFigures, type Quality, qualityOf } from "../report/figures.ts";
import type { Variant } from "./variants.ts";

/** One merge of a comparison. */
export interface ComparedMerge {
  readonly label: string;
  readonly method: string;
  /** The swept value, where there is one. */
  readonly value: number | null;
  /** The folder of the merged adapter. */
  readonly output: string;
  readonly rank: number;
  /** Numbers in A' and B', the padding to one rank not counted. */
  readonly parameters: number;
  /** Seconds of merging, reading the inputs not counted where others needed them too. */
  readonly seconds: number;
  readonly quality: Quality;
}

/** How to compare. */
export interface CompareOptions {
  readonly device: Device;
  /** An existing folder; each merge becomes a folder in it. */
  readonly directory: string;
  readonly signal?: AbortSignal;
  /** Called before each module, and before each method that looks at the whole model. */
  onStep?(what: string, done: number, total: number): void;
}

/** A merge by modules, as far as it is done. */
interface Running {
  readonly variant: Variant;
  readonly method: ModuleMethod;
  readonly plan: Plan;
  readonly modules: ReadonlyMap<string, PlannedModule>;
  readonly writer: AdapterWriter;
  readonly output: string;
  readonly deltas: DeltaFigures[];
  seconds: number;
}

/**
 * Merges the same adapters in several ways. The inputs are read once for all methods that work module by module (a `rank`
 * that is chosen from spectra reads them once more); those that need the whole model run by themselves afterwards.
 *
 * @param variants of one recipe: the same adapters and filters
 * @returns in the order of `variants`
 * @throws what `runMerge` throws
 */
export async function compareMerges(
  variants: readonly Variant[],
  options: CompareOptions,
): Promise<ComparedMerge[]> {
  const outputs = variants.map((_, index) => join(options.directory, `${index}`));
  const results = new Map<number, ComparedMerge>();
  const byModule = variants.map((variant, index) => ({ variant, index, output: outputs[index]! }))
    .filter(({ variant }) => METHODS.get(variant.recipe.method)!.kind === "module");
  const merged = await mergeByModules(byModule, options);
  byModule.forEach(({ index }, position) => results.set(index, merged[position]!));
  for (const [index, variant] of variants.entries()) {
    if (!results.has(index)) results.set(index, await mergeWhole(variant, outputs[index]!, options));
  }
  return variants.map((_, index) => results.get(index)!);
}

async function mergeByModules(
  wanted: readonly { readonly variant: Variant; readonly output: string }[],
  options: CompareOptions,
): Promise<ComparedMerge[]> {
  if (wanted.length === 0) return [];
  const adapters = await openAdapters(wanted[0]!.variant.recipe);
  const running: Running[] = [];
  try {
    for (const { variant, output } of wanted) running.push(await start(variant, output, adapters, options));
    const { plan } = running[0]!;
    for (const [done, planned] of plan.modules.entries()) {
      throwIfCancelled(options.signal, planned.name);
      options.onStep?.(planned.name, done, plan.modules.length);
      await mergeOneModule(running, planned, options.device);
    }
    for (const { writer } of running) await writer.finish();
    return running.map(finished);
  } catch (error) {
    for (const { writer } of running) await writer.abort();
    throw error;
  } finally {
    closeAdapters(adapters);
  }
}

async function start(
  variant: Variant,
  output: string,
  adapters: readonly Adapter[],
  { device, signal }: CompareOptions,
): Promise<Running> {
  const { recipe } = variant;
  const method = METHODS.get(recipe.method) as ModuleMethod;
  const plan = await planWithChosenRanks(planMerge(recipe, adapters, method), method, recipe, device, signal);
  await mkdir(output);
  const writer = await createPeftWriter(output, adapterSpec(recipe, plan, adapters));
  const modules = new Map(plan.modules.map((module) => [module.name, module]));
  return { variant, method, plan, modules, writer, output, deltas: [], seconds: 0 };
}

/** Merges one module in every way while its factors are on the device. */
async function mergeOneModule(
  running: readonly Running[],
  planned: PlannedModule,
  device: Device,
): Promise<void> {
  const sources = uploadModule(device, await readModule(planned, running[0]!.variant.recipe));
  try {
    for (const merge of running) {
      const { recipe } = merge.variant;
      const weighted = sources.map((source): WeightedFactors => ({
        ...source,
        weight: recipe.adapters[source.adapter]!.weight,
      }));
      await addModule(merge, merge.modules.get(planned.name)!, weighted, device);
    }
  } finally {
    disposeFactors(sources);
  }
}

async function addModule(
  merge: Running,
  planned: PlannedModule,
  sources: readonly WeightedFactors[],
  device: Device,
): Promise<void> {
  const { method, plan, variant: { recipe } } = merge;
  await device.finish();
  const begin = performance.now();
  const merged = await method.merge(sources, moduleContext(planned, { recipe, device, plan }));
  try {
    const { a, b } = await downloadMerged(device, planned.name, merged);
    merge.seconds += (performance.now() - begin) / 1000;
    merge.deltas.push(merged.deltas ?? await measureDeltas(device, sources, merged));
    await merge.writer.write(planned.name, a, b);
  } finally {
    disposeMerged(merged);
  }
}

function finished({ variant, plan, output, deltas, seconds }: Running): ComparedMerge {
  const { label, recipe, value } = variant;
  return {
    label,
    method: recipe.method,
    value: value ?? null,
    output,
    rank: plan.rank,
    parameters: parametersOf(plan.modules),
    seconds,
    quality: qualityOf(deltas, recipe.adapters.map(({ name }) => name)),
  };
}

function parametersOf(
  modules: readonly Pick<PlannedModule, "rank" | "inFeatures" | "outFeatures">[],
): number {
  return modules.reduce(
    (sum, { rank, inFeatures, outFeatures }) => sum + rank * (inFeatures + outFeatures),
    0,
  );
}

async function mergeWhole(variant: Variant, output: string, options: CompareOptions): Promise<ComparedMerge> {
  const { label, value } = variant;
  const recipe = { ...variant.recipe, output: { ...variant.recipe.output, path: output } };
  const { device, signal } = options;
  const adapters = await openAdapters(recipe);
  let parameters: number;
  try {
    parameters = parametersOf(planMerge(recipe, adapters, METHODS.get(recipe.method)!).modules);
  } finally {
    closeAdapters(adapters);
  }
  options.onStep?.(label, 0, 1);
  const { rank, seconds, quality } = await runMerge(recipe, {
    device,
    resumable: false,
    ...(signal ? { signal } : {}),
  });
  const method = recipe.method;
  return { label, method, value: value ?? null, output, rank, parameters, seconds: seconds.total, quality };
}
