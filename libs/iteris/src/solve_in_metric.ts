import { gemm, type Tensor } from "@lora-loom/tensor";
import { copyTo, weightedSum } from "./algebra.ts";
import type { Site } from "./base_model.ts";
import { type Moments, type RightHandSide, rightHandSide, type Target } from "./equations.ts";
import type { GroupEquations } from "./group_equations.ts";
import { withRidge } from "./ops/add_to_diagonal.ts";
import type { OutputMetrics } from "./output_metrics.ts";
import type { SiteProblem, StageMetric, StageProblem } from "./solve_stage.ts";
import {
  areIdentities,
  BlockFactor,
  type BlockMatrix,
  combination,
  dampedMetrics,
  identityOf,
} from "./solver/block_matrix.ts";
import type { Factor } from "./solver/factor.ts";
import type { MetricTerm } from "./solver/metric.ts";
import { type Cut, type SiteSolution, solveSite, solveSiteWithMetrics } from "./solver/solve_site.ts";

/**
 * Solves one site with the tasks' output metrics; where all of them are the identity, without.
 *
 * @param plain the equations without metrics
 */
export async function solveInMetric(
  { moments, target, roundoff }: StageProblem,
  { metrics, device, damping, mostSteps }: StageMetric,
  site: SiteProblem,
  plain: RightHandSide,
  factor: Factor,
  { gram, ridge }: GroupEquations,
  alpha: number,
  cut: Cut,
): Promise<SiteSolution> {
  using owned = new DisposableStack();
  const { weights } = site;
  const damped = await dampedBlocks(metrics, weights.length, site.site, damping);
  for (const matrix of damped) owned.use(matrix);
  if (await areIdentities(damped, roundoff)) {
    return { ...await solveSite(factor, plain, alpha, cut), metric: { steps: 0, residual: 0 } };
  }
  const rights = weights.map((_, task) => {
    const alone = weights.map((weight, other) => other === task ? weight : 0);
    return owned.use(denseRightHandSide(site, moments, alone, target, alpha));
  });
  const terms: MetricTerm[] = [];
  for (const [task, weight] of weights.entries()) {
    const { own, ownNorm } = moments[task]!;
    using ownGram = withRidge(own, weight, alpha * weight * ownNorm);
    terms.push({
      metric: damped[task]!,
      gram: owned.use(await copyTo(device, ownGram)),
      right: owned.use(await copyTo(device, rights[task]!)),
    });
  }
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  using mean = combination(damped, weights.map((weight) => weight / total));
  using meanThere = await mean.on(gram.device);
  using factored = await BlockFactor.of(meanThere);
  using inverseMetricThere = factored.inverse();
  using inverseMetric = await inverseMetricThere.on(device);
  using identity = identityOf(gram.device, gram.shape[0]!);
  using inverseGramThere = factor.precondition(identity);
  using inverseGram = await copyTo(device, inverseGramThere);
  using right = weightedSum(rights, rights.map(() => 1))!;
  using whole = withRidge(gram, 1, alpha * ridge);
  const system = { terms, mean: factored, inverseMetric, inverseGram, gram: whole, mostSteps };
  return await solveSiteWithMetrics(factor, right, system, cut);
}

/** N + α P with a row per output. */
function denseRightHandSide(
  site: SiteProblem,
  moments: readonly Moments[],
  weights: readonly number[],
  target: Target,
  alpha: number,
): Tensor {
  using equations = rightHandSide(site, site.stackedB, site.baseWeight, moments, weights, target);
  if (!equations.stacked) return equations.at(alpha);
  using rows = equations.at(alpha);
  return gemm(equations.stacked, rows);
}

/** The F̂_i of all tasks at a site. */
async function dampedBlocks(
  metrics: OutputMetrics,
  tasks: number,
  { module, outFeatures }: Site,
  damping: number,
): Promise<BlockMatrix[]> {
  using owned = new DisposableStack();
  const blocks: Tensor[] = [];
  for (let task = 0; task < tasks; task++) {
    blocks.push(owned.use(await metrics.blocks(task, module, outFeatures)));
  }
  return await dampedMetrics(blocks, damping);
}
