import type { Tensor } from "@lora-loom/tensor";
import { adaptiveWeight, outputEnergy, weightEnergy } from "./adaptive_weights.ts";
import { weightedSquares } from "./algebra.ts";
import type { Stage } from "./base_model.ts";
import type { Moments } from "./equations.ts";
import { precisionOf } from "./options.ts";
import { targetRows } from "./output_error.ts";
import type { PlannedSite } from "./plan.ts";
import { baseWeightFor, type Run, solvingDevice } from "./run_context.ts";
import { Scalars } from "./scalars.ts";
import type { StageProblem } from "./solve_stage.ts";
import { disposeMoments, sumOfMoments, TaskStatistics } from "./statistics.ts";
import type { LoadedPair, TaskStream } from "./streams/task_stream.ts";

/** What one look at all samples before a stage gives. The moments are where the stage is solved. */
export interface Gathered extends Disposable {
  /** A task each, from all samples. */
  readonly moments: readonly Moments[];
  readonly split: StageProblem["split"];
  /** λ_i by site and task. */
  readonly adaptiveWeights: readonly (readonly number[])[];
  /** ‖Y_i‖² on the samples kept out, by site and task. */
  readonly heldOutEnergies: readonly (readonly number[])[];
}

/** Sums of one task: of the samples to fit, and of those kept out. */
interface Parts {
  readonly fit: TaskStatistics;
  readonly heldOut: TaskStatistics;
}

/**
 * Sums up what the stage's equations need.
 *
 * @throws {IterisError} `not_finite_activations`
 */
export async function gather(
  run: Run,
  stage: Stage,
  sites: readonly PlannedSite[],
  streams: readonly TaskStream[],
): Promise<Gathered> {
  using sums = new DisposableStack();
  const statistics = streams.map((stream): Parts => ({
    fit: sums.use(newStatistics(run, stage, sites, stream)),
    heldOut: sums.use(newStatistics(run, stage, sites, stream)),
  }));
  const expertEnergies = numberTable(sites.length, streams.length);
  const heldOutEnergies = numberTable(sites.length, streams.length);
  for (const [task, stream] of streams.entries()) {
    for (let chunk = 0; chunk < stream.length; chunk++) {
      run.signal?.throwIfAborted();
      using pair = await stream.load(chunk, stage);
      statistics[task]![pair.heldOut ? "heldOut" : "fit"].add(pair);
      await addEnergies(run, sites, task, pair, expertEnergies, heldOutEnergies);
    }
  }
  using owned = new DisposableStack();
  const moments = await takeMoments(run, stage, statistics, owned);
  await settleAdaptiveWeights(run, sites, expertEnergies);
  const adaptiveWeights = sites.map((site) =>
    streams.map((_, task) => run.adaptiveWeights.get(weightKey(task, site))!)
  );
  const kept = owned.move();
  return { ...moments, adaptiveWeights, heldOutEnergies, [Symbol.dispose]: () => kept.dispose() };
}

function newStatistics(
  { settings }: Run,
  { reads }: Stage,
  sites: readonly PlannedSite[],
  { task }: TaskStream,
): TaskStatistics {
  const withStream = settings.stream && sites.some(({ site }) => site.writesStream);
  return new TaskStatistics({
    withStream,
    precision: precisionOf(settings),
    factor: task.tokenWeights.get(reads)!.largest,
  });
}

async function takeMoments(
  run: Run,
  stage: Stage,
  statistics: readonly Parts[],
  owned: DisposableStack,
): Promise<Pick<Gathered, "moments" | "split">> {
  const device = solvingDevice(run, stage);
  const all: Moments[] = [];
  const split = { fit: [] as Moments[], heldOut: [] as Moments[] };
  for (const [task, { fit, heldOut }] of statistics.entries()) {
    const { name } = run.plan.tasks[task]!;
    const take = async (part: TaskStatistics) =>
      owned.adopt(await part.momentsOn(device, name, stage.name), disposeMoments);
    const fitted = await take(fit);
    if (run.settings.alpha !== "auto") {
      all.push(fitted);
      continue;
    }
    const kept = await take(heldOut);
    split.fit.push(fitted);
    split.heldOut.push(kept);
    all.push(owned.adopt(await sumOfMoments(fitted, kept), disposeMoments));
  }
  return { moments: all, split: run.settings.alpha === "auto" ? split : undefined };
}

/** Adds one batch to the energies that λ_i and the score of α are made of. */
async function addEnergies(
  run: Run,
  sites: readonly PlannedSite[],
  task: number,
  pair: LoadedPair,
  expertEnergies: number[][],
  heldOutEnergies: number[][],
): Promise<void> {
  const { adaptiveWeights } = run.settings;
  const scalars = new Scalars();
  for (const [index, site] of sites.entries()) {
    if (adaptiveWeights !== "none" && !run.adaptiveWeights.has(weightKey(task, site))) {
      const energy = outputEnergy(
        pair.expert.input,
        pair.rootWeights,
        expertWeight(run, site, task),
        adaptiveWeights,
      );
      scalars.add(energy, (value) => expertEnergies[index]![task]! += value);
    }
    if (!pair.heldOut) continue;
    scalars.add(targetEnergy(run, site, task, pair), (value) => heldOutEnergies[index]![task]! += value);
  }
  await scalars.settle();
}

function targetEnergy(run: Run, site: PlannedSite, task: number, pair: LoadedPair): Tensor {
  using target = targetOf(run, site, task, pair);
  return weightedSquares(target, pair.rootWeights);
}

/** Y_i of one batch at a site, `[tokens, out]`. */
export function targetOf(run: Run, { site, deltas }: PlannedSite, task: number, pair: LoadedPair): Tensor {
  return targetRows(site, pair, deltas[task], baseWeightFor(run, site.module), run.settings);
}

function expertWeight({ model }: Run, { site, deltas }: PlannedSite, task: number) {
  return { baseWeight: model.weight(site.module), delta: deltas[task] };
}

function weightKey(task: number, { site }: PlannedSite): string {
  return `${task} ${site.module}`;
}

/** Makes λ_i of a task at a site known, so that it is not looked for. */
export function keepAdaptiveWeight(run: Run, task: number, site: PlannedSite, value: number): void {
  run.adaptiveWeights.set(weightKey(task, site), value);
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
      const energy = kind === "none" ? 1 : await weightEnergy(expertWeight(run, site, task), kind);
      keepAdaptiveWeight(run, task, site, adaptiveWeight(kind, energy, expertEnergies[index]![task]!));
    }
  }
}

function numberTable(rows: number, columns: number): number[][] {
  return Array.from({ length: rows }, () => new Array<number>(columns).fill(0));
}
