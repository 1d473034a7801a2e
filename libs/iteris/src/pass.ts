import { CpuDevice, type Device, type Tensor } from "@lora-loom/tensor";
import { adaptiveWeight, outputEnergy, weightEnergy } from "./adaptive_weights.ts";
import { copyTo, disposeDeltas, weightedSquares } from "./algebra.ts";
import type { BaseModel, Delta, Deltas, Stage } from "./base_model.ts";
import type { Moments } from "./equations.ts";
import type { Settings } from "./options.ts";
import { ErrorSums, type OutputErrors, targetRows } from "./output_error.ts";
import { type Plan, type PlannedSite, solvesOnHost } from "./plan.ts";
import type { SiteReport } from "./report.ts";
import { Scalars } from "./scalars.ts";
import { type SiteProblem, type SolvedSite, solveStage, type StageProblem } from "./solve_stage.ts";
import { TaskStatistics } from "./statistics.ts";
import type { StateStore } from "./streams/state_store.ts";
import { type LoadedPair, TaskStream } from "./streams/task_stream.ts";

/** What every pass of one merge works with. */
export interface Run {
  readonly device: Device;
  readonly model: BaseModel;
  readonly settings: Settings;
  readonly plan: Plan;
  readonly store: StateStore;
  readonly tokensPerChunk: number;
  /** Stages with more inputs are solved on the device. */
  readonly hostSolverLimit: number;
  /** λ_i by task and module: they depend on the experts alone, so the first pass finds them for all. */
  readonly adaptiveWeights: Map<string, number>;
  readonly onStage: (stage: Stage) => void;
  readonly signal: AbortSignal | undefined;
}

/** What the merged model carries while a pass goes through the stages. */
export interface Applied {
  /** `solved`: each stage what was just solved for it; otherwise these deltas, none meaning that the experts' inputs are used. */
  readonly deltas: "solved" | Deltas | undefined;
  /** Whether to measure output errors. */
  readonly measure: boolean;
}

/** The outcome of one pass. The deltas live on the run's device and are the caller's. */
export interface PassResult {
  readonly deltas: Map<string, Delta>;
  readonly sites: readonly SiteReport[];
}

/** Leads all samples through all stages once, solving every stage from what arrives there. */
export async function runPass(run: Run, applied: Applied): Promise<PassResult> {
  const { plan, model, store } = run;
  const holdOut = run.settings.alpha === "auto";
  const streams: TaskStream[] = [];
  for (const task of plan.tasks) {
    streams.push(await TaskStream.begin(task, model, store, { tokensPerChunk: run.tokensPerChunk, holdOut }));
  }
  const result = { deltas: new Map<string, Delta>(), sites: [] as SiteReport[] };
  try {
    for (const stage of model.stages) {
      await runStage(run, stage, streams, applied, result);
      run.onStage(stage);
    }
  } catch (error) {
    disposeDeltas(result.deltas);
    throw error;
  }
  for (const stream of streams) await stream.release();
  return result;
}

async function runStage(
  run: Run,
  stage: Stage,
  streams: readonly TaskStream[],
  applied: Applied,
  result: { readonly deltas: Map<string, Delta>; readonly sites: SiteReport[] },
): Promise<void> {
  const sites = run.plan.sites.get(stage.index) ?? [];
  const solved = new Map<string, Delta>();
  let reports: SiteReport[] = [];
  if (sites.length > 0) {
    using gathered = await gather(run, stage, sites, streams);
    reports = await solve(run, stage, sites, gathered, solved);
  }
  for (const [module, delta] of solved) result.deltas.set(module, delta);

  const carried = sites.length === 0 ? undefined : applied.deltas === "solved" ? solved : applied.deltas;
  const isLast = stage.index === run.model.stages.length - 1;
  const errors = new ErrorTable(sites.length, streams.length);
  for (const [task, stream] of streams.entries()) {
    for (let chunk = 0; chunk < stream.length; chunk++) {
      run.signal?.throwIfAborted();
      using pair = await stream.load(chunk, stage);
      if (applied.measure) await errors.add(run, sites, task, pair, solved);
      if (!isLast) await stream.advance(chunk, stage, pair, carried);
    }
  }
  result.sites.push(...reports.map((report, site) => withErrors(report, errors.of(site))));
}

/** What one look at all samples before a stage gives. */
interface Gathered extends Disposable {
  /** A task each, from all samples. */
  readonly moments: readonly Moments[];
  readonly split: StageProblem["split"];
  /** λ_i by site and task. */
  readonly adaptiveWeights: readonly (readonly number[])[];
  /** ‖Y_i‖² on the samples kept out, by site and task. */
  readonly heldOutEnergies: readonly (readonly number[])[];
}

async function gather(
  run: Run,
  stage: Stage,
  sites: readonly PlannedSite[],
  streams: readonly TaskStream[],
): Promise<Gathered> {
  const { settings, plan } = run;
  const withStream = settings.stream && sites.some(({ site }) => site.writesStream);
  using owned = new DisposableStack();
  const statistics = streams.map(() => ({
    fit: owned.use(new TaskStatistics(withStream)),
    heldOut: owned.use(new TaskStatistics(withStream)),
  }));
  const expertEnergies = numberTable(sites.length, streams.length);
  const heldOutEnergies = numberTable(sites.length, streams.length);
  for (const [task, stream] of streams.entries()) {
    for (let chunk = 0; chunk < stream.length; chunk++) {
      run.signal?.throwIfAborted();
      using pair = await stream.load(chunk, stage);
      statistics[task]![pair.heldOut ? "heldOut" : "fit"].add(pair);
      const scalars = new Scalars();
      for (const [index, site] of sites.entries()) {
        if (settings.adaptiveWeights !== "none" && !run.adaptiveWeights.has(weightKey(task, site))) {
          const energy = expertEnergy(run, site, task, pair, settings.adaptiveWeights);
          scalars.add(energy, (value) => expertEnergies[index]![task]! += value);
        }
        if (!pair.heldOut) continue;
        scalars.add(targetEnergy(run, site, task, pair), (value) => heldOutEnergies[index]![task]! += value);
      }
      await scalars.settle();
    }
  }

  const momentsOf = (part: TaskStatistics, task: number) => finish(part, plan.tasks[task]!.name, stage);
  let split: StageProblem["split"];
  if (settings.alpha === "auto") {
    split = {
      fit: await Promise.all(statistics.map(({ fit }, task) => momentsOf(fit, task))),
      heldOut: await Promise.all(statistics.map(({ heldOut }, task) => momentsOf(heldOut, task))),
    };
  }
  const all = statistics.map(({ fit, heldOut }) =>
    settings.alpha === "auto" ? owned.use(fit.plus(heldOut)) : fit
  );
  const moments = await Promise.all(all.map(momentsOf));
  await settleAdaptiveWeights(run, sites, expertEnergies);
  const kept = owned.move();
  return {
    moments,
    split,
    adaptiveWeights: sites.map((site) =>
      plan.tasks.map((_, task) => run.adaptiveWeights.get(weightKey(task, site))!)
    ),
    heldOutEnergies,
    [Symbol.dispose]: () => kept.dispose(),
  };
}

async function finish(statistics: TaskStatistics, task: string, stage: Stage): Promise<Moments> {
  const { own, cross } = await statistics.norms(task, stage.name);
  return {
    own: statistics.own,
    drift: statistics.drift,
    stream: statistics.stream,
    ownNorm: own,
    crossNorm: cross,
  };
}

function weightKey(task: number, { site }: PlannedSite): string {
  return `${task} ${site.module}`;
}

function expertEnergy(
  run: Run,
  site: PlannedSite,
  task: number,
  pair: LoadedPair,
  kind: "full" | "delta",
): Tensor {
  const weight = { baseWeight: run.model.weight(site.site.module), delta: site.deltas[task] };
  return outputEnergy(pair.expert.input, pair.rootWeights, weight, kind);
}

function targetEnergy(run: Run, site: PlannedSite, task: number, pair: LoadedPair): Tensor {
  using target = targetOf(run, site, task, pair);
  return weightedSquares(target, pair.rootWeights);
}

function targetOf(run: Run, { site, deltas }: PlannedSite, task: number, pair: LoadedPair): Tensor {
  return targetRows(site, pair, deltas[task], baseWeightFor(run, site.module), run.settings);
}

/** W0 where the target needs it. */
function baseWeightFor({ settings, model }: Run, module: string): Tensor | undefined {
  return settings.drift ? model.weight(module) : undefined;
}

async function settleAdaptiveWeights(
  run: Run,
  sites: readonly PlannedSite[],
  expertEnergies: readonly (readonly number[])[],
): Promise<void> {
  const kind = run.settings.adaptiveWeights;
  for (const [index, site] of sites.entries()) {
    for (const task of run.plan.tasks.keys()) {
      const key = weightKey(task, site);
      if (run.adaptiveWeights.has(key)) continue;
      const weight = { baseWeight: run.model.weight(site.site.module), delta: site.deltas[task] };
      const energy = kind === "none" ? 1 : await weightEnergy(weight, kind);
      run.adaptiveWeights.set(key, adaptiveWeight(kind, energy, expertEnergies[index]![task]!));
    }
  }
}

/** Solves a stage, puts the deltas into `solved` on the run's device, and reports all but the output errors. */
async function solve(
  run: Run,
  stage: Stage,
  sites: readonly PlannedSite[],
  gathered: Gathered,
  solved: Map<string, Delta>,
): Promise<SiteReport[]> {
  const { device, settings, plan } = run;
  const { alpha, rank, truncation, drift, stream } = settings;
  using problem = await place(run, stage, sites, gathered);
  const roundoff = device.info.backend === "cpu" ? 2 ** -53 : 2 ** -24;
  const target = { drift, stream };
  const solutions = new Map<string, SolvedSite>();
  for (const site of await solveStage({ ...problem, stage, target, alpha, rank, truncation, roundoff })) {
    using solution = site.solution;
    solutions.set(site.module, site);
    solved.set(site.module, { a: await copyTo(device, solution.a), b: await copyTo(device, solution.b) });
  }
  return sites.map((site, index) => {
    const { solution, ...figures } = solutions.get(site.site.module)!;
    return {
      ...figures,
      stage: stage.name,
      backwardError: solution.backwardError,
      iterations: solution.iterations,
      rank: solution.rank,
      tasks: plan.tasks.map(({ name }, task) => ({
        task: name,
        hasModule: site.deltas[task] !== undefined,
        adaptiveWeight: gathered.adaptiveWeights[index]![task]!,
        gramNorm: gathered.moments[task]!.ownNorm,
        crossNorm: gathered.moments[task]!.crossNorm,
        errors: { sum: NaN, mean: NaN, merged: NaN },
      })),
    };
  });
}

/** The stage's problem with its tensors where it is solved: copies on the host in float64, or as they are. */
async function place(
  run: Run,
  stage: Stage,
  sites: readonly PlannedSite[],
  { moments, split, adaptiveWeights, heldOutEnergies }: Gathered,
): Promise<Disposable & Pick<StageProblem, "sites" | "moments" | "split">> {
  const { device, plan } = run;
  const inFeatures = stage.sites[0]!.inFeatures;
  using owned = new DisposableStack();
  const host = new CpuDevice();
  const onHost = device.info.backend !== "cpu" && solvesOnHost(device, inFeatures, run.hostSolverLimit);
  const placed = async (tensor: Tensor) => onHost ? owned.use(await copyTo(host, tensor)) : tensor;
  const placedMoments = async (list: readonly Moments[]) => {
    const copies: Moments[] = [];
    for (const one of list) {
      copies.push({
        ...one,
        own: await placed(one.own),
        drift: one.drift && await placed(one.drift),
        stream: one.stream && await placed(one.stream),
      });
    }
    return copies;
  };

  const problems: SiteProblem[] = [];
  for (const [index, { site, deltas, stacked }] of sites.entries()) {
    const placedDeltas: (Delta | undefined)[] = [];
    for (const delta of deltas) {
      placedDeltas.push(delta && { a: await placed(delta.a), b: await placed(delta.b) });
    }
    const weights = plan.tasks.map(({ weight }, task) => weight * adaptiveWeights[index]![task]!);
    const baseWeight = baseWeightFor(run, site.module);
    problems.push({
      site,
      deltas: placedDeltas,
      stackedB: await placed(stacked.b),
      baseWeight: baseWeight && await placed(baseWeight),
      weights,
      heldOutEnergy: heldOutEnergies[index]!.reduce((sum, energy, task) => sum + weights[task]! * energy, 0),
    });
  }
  const placedAll = await placedMoments(moments);
  const placedSplit = split &&
    { fit: await placedMoments(split.fit), heldOut: await placedMoments(split.heldOut) };
  const kept = owned.move();
  return { sites: problems, moments: placedAll, split: placedSplit, [Symbol.dispose]: () => kept.dispose() };
}

/** Output errors by site and task. */
class ErrorTable {
  readonly #sums: ErrorSums[][];

  constructor(sites: number, tasks: number) {
    this.#sums = Array.from({ length: sites }, () => Array.from({ length: tasks }, () => new ErrorSums()));
  }

  async add(
    run: Run,
    sites: readonly PlannedSite[],
    task: number,
    pair: LoadedPair,
    solved: Deltas,
  ): Promise<void> {
    const scalars = new Scalars();
    for (const [index, site] of sites.entries()) {
      using target = targetOf(run, site, task, pair);
      this.#sums[index]![task]!.add(scalars, target, pair.merged.input, pair.rootWeights, {
        stacked: site.stacked,
        solution: solved.get(site.site.module)!,
        tasks: run.plan.tasks.length,
      });
    }
    await scalars.settle();
  }

  of(site: number): OutputErrors[] {
    return this.#sums[site]!.map((sums) => sums.errors());
  }
}

function withErrors(report: SiteReport, errors: readonly OutputErrors[]): SiteReport {
  return { ...report, tasks: report.tasks.map((task, index) => ({ ...task, errors: errors[index]! })) };
}

function numberTable(rows: number, columns: number): number[][] {
  return Array.from({ length: rows }, () => new Array<number>(columns).fill(0));
}
