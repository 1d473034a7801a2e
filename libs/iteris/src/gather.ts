import type { Tensor } from "@lora-loom/tensor";
import { adaptiveWeight, type MeasuredWeight, measuredWeight } from "./adaptive_weights.ts";
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
  const heldOutEnergies = numberTable(sites.length, streams.length);
  using scalars = new Scalars();
  for (const [task, stream] of streams.entries()) {
    using experts = new ExpertEnergies(run, sites, task, scalars);
    for (let chunk = 0; chunk < stream.length; chunk++) {
      run.signal?.throwIfAborted();
      using pair = await stream.load(chunk, stage);
      statistics[task]![pair.heldOut ? "heldOut" : "fit"].add(pair);
      experts.add(pair, scalars);
      if (pair.heldOut) addTargetEnergies(run, sites, task, pair, heldOutEnergies, scalars);
      await scalars.settleSome();
    }
    await scalars.settle();
    experts.settle();
  }
  using owned = new DisposableStack();
  const moments = await takeMoments(run, stage, statistics, owned);
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
  const precision = precisionOf(settings);
  const factors = sites.flatMap(({ site: { module } }) => {
    const delta = task.deltas.get(module);
    return delta ? [[module, delta.a] as const] : [];
  });
  return new TaskStatistics({
    withStream: settings.stream && sites.some(({ site }) => site.writesStream),
    precision,
    factor: task.tokenWeights.get(reads)!.largest,
    factors: new Map(settings.drift || precision === "double" ? [] : factors),
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

/** What λ_i of one task is made of at the sites of a stage: for those whose λ_i no earlier pass has found. */
class ExpertEnergies implements Disposable {
  readonly #weights = new Map<string, MeasuredWeight>();
  /** Energies of weights and of outputs. */
  readonly #sums = new Map<string, { weight: number; outputs: number }>();

  constructor(readonly run: Run, sites: readonly PlannedSite[], task: number, scalars: Scalars) {
    const kind = run.settings.adaptiveWeights;
    for (const site of sites) {
      const key = weightKey(task, site);
      if (run.adaptiveWeights.has(key)) continue;
      const sums = { weight: 1, outputs: 0 };
      this.#sums.set(key, sums);
      if (kind === "none") continue;
      const weight = measuredWeight(run.model.weight(site.site.module), site.deltas[task], kind);
      this.#weights.set(key, weight);
      scalars.add(weight.energy(), (value) => sums.weight = value);
    }
  }

  /** Adds one batch; it counts once the scalars are settled. */
  add({ expert, rootWeights }: LoadedPair, scalars: Scalars): void {
    for (const [key, weight] of this.#weights) {
      const sums = this.#sums.get(key)!;
      scalars.add(weight.outputEnergy(expert.input, rootWeights), (value) => sums.outputs += value);
    }
  }

  /** Puts the λ_i down. */
  settle(): void {
    const { settings, adaptiveWeights } = this.run;
    for (const [key, { weight, outputs }] of this.#sums) {
      adaptiveWeights.set(key, adaptiveWeight(settings.adaptiveWeights, weight, outputs));
    }
  }

  [Symbol.dispose](): void {
    for (const weight of this.#weights.values()) weight[Symbol.dispose]();
  }
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

function weightKey(task: number, { site }: PlannedSite): string {
  return `${task} ${site.module}`;
}

function numberTable(rows: number, columns: number): number[][] {
  return Array.from({ length: rows }, () => new Array<number>(columns).fill(0));
}
