import type { Tensor } from "@lora-loom/tensor";
import { weightedSquares } from "./algebra.ts";
import type { Stage } from "./base_model.ts";
import type { Moments } from "./equations.ts";
import { IterisError } from "./errors.ts";
import { adaptiveWeightOf, ExpertEnergies } from "./expert_energies.ts";
import { precisionOf } from "./options.ts";
import { targetRows } from "./output_error.ts";
import type { PlannedSite } from "./plan.ts";
import { baseWeightFor, type Run, solvingDevice } from "./run_context.ts";
import { Scalars } from "./scalars.ts";
import type { StageProblem } from "./solve_stage.ts";
import { StackedFactors } from "./stacked_factors.ts";
import { disposeMoments, sumOfMoments, type TaskFactors, TaskStatistics } from "./statistics.ts";
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
  const scalars = sums.use(new Scalars());
  const statistics: Parts[] = [];
  const energies: ExpertEnergies[] = [];
  const heldOutEnergies = numberTable(sites.length, streams.length);
  for (const [task, stream] of streams.entries()) {
    using experts = new ExpertEnergies(run, stage, sites, task, stream, scalars);
    const parts = newParts(run, stage, sites, stream, experts.byGram, sums);
    for (let chunk = 0; chunk < stream.length; chunk++) {
      run.signal?.throwIfAborted();
      using pair = await stream.load(chunk, stage);
      parts[pair.heldOut ? "heldOut" : "fit"].add(pair);
      experts.add(pair);
      if (pair.heldOut) addTargetEnergies(run, sites, task, pair, heldOutEnergies, scalars);
      await scalars.settleSome();
    }
    experts.addGrams([parts.fit, parts.heldOut]);
    statistics.push(parts);
    energies.push(experts);
  }
  using owned = new DisposableStack();
  const moments = await takeMoments(run, stage, statistics, scalars, owned);
  await scalars.settle();
  checkFinite(run, stage, moments.moments);
  for (const experts of energies) experts.keep();
  const adaptiveWeights = sites.map((site) => streams.map((_, task) => adaptiveWeightOf(run, task, site)));
  const kept = owned.move();
  return { ...moments, adaptiveWeights, heldOutEnergies, [Symbol.dispose]: () => kept.dispose() };
}

function newParts(
  { settings }: Run,
  { reads }: Stage,
  sites: readonly PlannedSite[],
  { task }: TaskStream,
  withExpert: boolean,
  owned: DisposableStack,
): Parts {
  const precision = precisionOf(settings);
  const options = {
    withStream: settings.stream && sites.some(({ site }) => site.writesStream),
    withExpert,
    precision,
    factor: task.tokenWeights.get(reads)!.largest,
    factors: settings.drift || precision === "double" ? undefined : factorsOf(task.deltas, sites, owned),
  };
  return {
    fit: owned.use(new TaskStatistics(options)),
    heldOut: owned.use(new TaskStatistics(options)),
  };
}

function factorsOf(
  deltas: TaskStream["task"]["deltas"],
  sites: readonly PlannedSite[],
  owned: DisposableStack,
): TaskFactors | undefined {
  const adapted = sites.flatMap(({ site: { module } }) => {
    const delta = deltas.get(module);
    return delta ? [{ module, a: delta.a }] : [];
  });
  if (adapted.length === 0) return undefined;
  const stack = owned.use(new StackedFactors(adapted.map(({ a }) => a)));
  return { modules: adapted.map(({ module }) => module), stack };
}

/** The moments on the device where the stage is solved; their norms are known once the scalars are settled. */
async function takeMoments(
  run: Run,
  stage: Stage,
  statistics: readonly Parts[],
  scalars: Scalars,
  owned: DisposableStack,
): Promise<Pick<Gathered, "moments" | "split">> {
  const device = solvingDevice(run, stage);
  const all: Moments[] = [];
  const split = { fit: [] as Moments[], heldOut: [] as Moments[] };
  for (const { fit, heldOut } of statistics) {
    const take = async (part: TaskStatistics) =>
      owned.adopt(await part.takeMomentsTo(device, scalars), disposeMoments);
    const fitted = await take(fit);
    if (run.settings.alpha !== "auto") {
      all.push(fitted);
      continue;
    }
    const kept = await take(heldOut);
    split.fit.push(fitted);
    split.heldOut.push(kept);
    all.push(owned.adopt(sumOfMoments(fitted, kept, scalars), disposeMoments));
  }
  return { moments: all, split: run.settings.alpha === "auto" ? split : undefined };
}

function checkFinite(run: Run, stage: Stage, moments: readonly Moments[]): void {
  const task = moments.findIndex(({ ownNorm, crossNorm }) => !Number.isFinite(ownNorm + crossNorm));
  if (task < 0) return;
  const { name } = run.plan.tasks[task]!;
  throw new IterisError(
    "not_finite_activations",
    `the inputs of ${stage.name} contain NaN or infinity on the samples of ${name}`,
    "check the adapter and the base model for NaN weights, and that they belong together",
    `${name}, ${stage.name}`,
  );
}

/** Adds ‖Y_i‖² of one batch, which the score of α is made of. */
function addTargetEnergies(
  run: Run,
  sites: readonly PlannedSite[],
  task: number,
  pair: LoadedPair,
  energies: number[][],
  scalars: Scalars,
): void {
  for (const [index, site] of sites.entries()) {
    scalars.add(targetEnergy(run, site, task, pair), (value) => energies[index]![task]! += value);
  }
}

function targetEnergy(run: Run, site: PlannedSite, task: number, pair: LoadedPair): Tensor {
  using target = targetOf(run, site, task, pair);
  return weightedSquares(target, pair.rootWeights);
}

/** Y_i of one batch at a site, `[tokens, out]`. */
export function targetOf(run: Run, { site, deltas }: PlannedSite, task: number, pair: LoadedPair): Tensor {
  return targetRows(site, pair, deltas[task], baseWeightFor(run, site.module), run.settings);
}

function numberTable(rows: number, columns: number): number[][] {
  return Array.from({ length: rows }, () => new Array<number>(columns).fill(0));
}
