import type { Stage } from "./base_model.ts";
import type { Gathered } from "./gather.ts";
import { precisionOf } from "./options.ts";
import { placedDeltas, placedTensor } from "./placed.ts";
import type { PlannedSite } from "./plan.ts";
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
  const problems: SiteProblem[] = [];
  for (const [index, { site, deltas, stacked }] of sites.entries()) {
    const deltasThere = await placedDeltas(deltas, device, owned);
    const weights = run.plan.tasks.map(({ weight }, task) => weight * adaptiveWeights[index]![task]!);
    const baseWeight = baseWeightFor(run, site.module);
    problems.push({
      site,
      deltas: deltasThere,
      stackedB: await placedTensor(stacked.b, device, owned),
      baseWeight: baseWeight && await placedTensor(baseWeight, device, owned),
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
