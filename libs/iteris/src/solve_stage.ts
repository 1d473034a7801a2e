import { type Device, gemm, type Tensor } from "@lora-loom/tensor";
import { copyTo, weightedSum } from "./algebra.ts";
import type { Site, Stage } from "./base_model.ts";
import {
  type AdaptedSite,
  type Moments,
  ridgeOf,
  type RightHandSide,
  rightHandSide,
  type Target,
  weightedGram,
} from "./equations.ts";
import { withRidge } from "./ops/add_to_diagonal.ts";
import type { TruncationKind } from "./options.ts";
import type { OutputMetrics } from "./output_metrics.ts";
import type { Precision } from "./product_sum.ts";
import { type AlphaScore, bestAlpha, scoreAlphas } from "./solver/alpha_search.ts";
import {
  areIdentities,
  BlockFactor,
  type BlockMatrix,
  combination,
  dampedMetrics,
  identityOf,
} from "./solver/block_matrix.ts";
import { type Conditioning, type Factor, factorise } from "./solver/factor.ts";
import type { MetricTerm } from "./solver/metric.ts";
import { type Cut, type SiteSolution, solveSite, solveSiteWithMetrics } from "./solver/solve_site.ts";

/** One site of a stage, ready to be solved. All tensors of a stage's problem live on one device. */
export interface SiteProblem extends AdaptedSite {
  /** [s_1B_1 … s_NB_N], `[out, Σr]`. */
  readonly stackedB: Tensor;
  /** W0; needed for drift alone. */
  readonly baseWeight: Tensor | undefined;
  /** c_i. */
  readonly weights: readonly number[];
  /** Σ_i c_i ‖Y_i‖² on the samples kept out; needed for `alpha: auto`. */
  readonly heldOutEnergy: number;
}

/** What is known of a stage when it is solved. */
export interface StageProblem {
  readonly stage: Stage;
  readonly sites: readonly SiteProblem[];
  /** From all samples, a task each. */
  readonly moments: readonly Moments[];
  /** The same, split into the samples to fit and those kept out; for `alpha: auto`. */
  readonly split: { readonly fit: readonly Moments[]; readonly heldOut: readonly Moments[] } | undefined;
  readonly target: Target;
  readonly alpha: number | "auto";
  /** Absent: Σr_i. */
  readonly rank: number | undefined;
  readonly truncation: TruncationKind;
  readonly metric: StageMetric | undefined;
  readonly roundoff: number;
  readonly precision: Precision;
}

/** Output metrics, and how to solve with them. */
export interface StageMetric {
  readonly metrics: OutputMetrics;
  /** Where conjugate gradients run. */
  readonly device: Device;
  /** γ */
  readonly damping: number;
  readonly mostSteps: number;
}

/** A solved site with the figures of its system. */
export interface SolvedSite {
  readonly module: string;
  readonly solution: SiteSolution;
  readonly alpha: number;
  /** What `alpha: auto` tried; empty otherwise. */
  readonly alphaCurve: readonly AlphaScore[];
  readonly solver: Factor["solver"];
  readonly condition: number;
  readonly shift: number;
}

/**
 * Solves all sites of a stage. Sites with the same c_i share one Gram matrix, and those with the same α one factor of it.
 *
 * @throws {IterisError} `singular_system`
 */
export async function solveStage(problem: StageProblem): Promise<SolvedSite[]> {
  const solved: SolvedSite[] = [];
  for (const group of groupedByWeights(problem.sites)) solved.push(...await solveGroup(problem, group));
  return solved;
}

function groupedByWeights(sites: readonly SiteProblem[]): Iterable<readonly SiteProblem[]> {
  return Map.groupBy(sites, ({ weights }) => weights.join()).values();
}

async function solveGroup(problem: StageProblem, group: readonly SiteProblem[]): Promise<SolvedSite[]> {
  const conditioning = {
    roundoff: problem.roundoff,
    precision: problem.precision,
    regularised: problem.alpha === "auto" || problem.alpha > 0,
    where: group.map(({ site }) => site.module).join(", "),
  };
  const curves = await alphaCurves(problem, group, conditioning);
  const alphas = group.map(({ site }, index) =>
    problem.alpha === "auto" ? bestAlpha(curves[index]!, site.module) : problem.alpha
  );
  using equations = new GroupEquations(group, problem.moments, problem.target);
  const solved: SolvedSite[] = [];
  for (const [alpha, indices] of Map.groupBy(group.keys(), (index) => alphas[index]!)) {
    using factor = await factorise(equations.gram, alpha * equations.ridge, conditioning);
    const { solver, shift } = factor;
    const condition = await factor.condition();
    for (const index of indices) {
      const { site, stackedB } = group[index]!;
      const plain = equations.sites[index]!;
      const cut = { rank: problem.rank ?? stackedB.shape[1]!, truncation: problem.truncation };
      const solution = problem.metric
        ? await solveInMetric(problem, problem.metric, group[index]!, plain, factor, equations, alpha, cut)
        : await solveSite(factor, plain, alpha, cut);
      solved.push({
        module: site.module,
        solution,
        alpha,
        alphaCurve: curves[index]!,
        solver,
        condition,
        shift,
      });
    }
  }
  return solved;
}

/**
 * Solves one site with the tasks' output metrics; where all of them are the identity, without.
 *
 * @param plain the equations without metrics
 */
async function solveInMetric(
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

/** The equations of sites with the same c_i. */
class GroupEquations implements Disposable {
  readonly gram: Tensor;
  readonly ridge: number;
  readonly sites: readonly RightHandSide[];

  constructor(group: readonly SiteProblem[], moments: readonly Moments[], target: Target) {
    const { weights } = group[0]!;
    this.gram = weightedGram(moments, weights);
    this.ridge = ridgeOf(moments, weights);
    this.sites = group.map((site) =>
      rightHandSide(site, site.stackedB, site.baseWeight, moments, weights, target)
    );
  }

  [Symbol.dispose](): void {
    this.gram.dispose();
    for (const site of this.sites) site[Symbol.dispose]();
  }
}

async function alphaCurves(
  { split, target, alpha }: StageProblem,
  group: readonly SiteProblem[],
  conditioning: Conditioning,
): Promise<AlphaScore[][]> {
  if (alpha !== "auto" || !split) return group.map(() => []);
  using fit = new GroupEquations(group, split.fit, target);
  using heldOut = new GroupEquations(group, split.heldOut, target);
  return await scoreAlphas(fit, heldOut, group.map(({ heldOutEnergy }) => heldOutEnergy), conditioning);
}
