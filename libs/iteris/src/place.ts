import type { Tensor } from "@lora-loom/tensor";
import { copyTo } from "./algebra.ts";
import type { Delta, Stage } from "./base_model.ts";
import type { Gathered } from "./gather.ts";
import type { PlannedSite } from "./plan.ts";
import { precisionOf } from "./options.ts";
import { baseWeightFor, roundoffOf, type Run, solvingDevice } from "./run_context.ts";
import type { SiteProblem, StageProblem } from "./solve_stage.ts";

/** Puts a stage's problem together where it is solved: factors and base weights are copied there if need be. */
export async function placeProblem(
  run: Run,
  stage: Stage,
  sites: readonly PlannedSite[],
  { moments, split, adaptiveWeights, heldOutEnergies }: Gathered,
): Promise<StageProblem & Disposable> {
  const device = solvingDevice(run, stage);
  using owned = new DisposableStack();
  const placed = async (tensor: Tensor) =>
    tensor.device === device ? tensor : owned.use(await copyTo(device, tensor));

  const problems: SiteProblem[] = [];
  for (const [index, { site, deltas, stacked }] of sites.entries()) {
    const placedDeltas: (Delta | undefined)[] = [];
    for (const delta of deltas) {
      placedDeltas.push(delta && { a: await placed(delta.a), b: await placed(delta.b) });
    }
    const weights = run.plan.tasks.map(({ weight }, task) => weight * adaptiveWeights[index]![task]!);
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
  const { alpha, rank, truncation, drift, stream } = run.settings;
  const kept = owned.move();
  return {
    stage,
    sites: problems,
    moments,
    split,
    target: { drift, stream },
    alpha,
    rank,
    truncation,
    metric: run.metrics && {
      metrics: run.metrics,
      device: run.device,
      damping: run.settings.metricDamping,
      mostSteps: run.settings.metricSteps,
    },
    roundoff: roundoffOf(run.device),
    precision: precisionOf(run.settings),
    [Symbol.dispose]: () => kept.dispose(),
  };
}
