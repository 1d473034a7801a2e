import type { Device, Tensor } from "@lora-loom/tensor";
import type { Stage } from "./base_model.ts";
import { allOf, concurrently, inTurn } from "./concurrently.ts";
import type { AdaptedSite, Moments, Target } from "./equations.ts";
import { GroupEquations, type SiteGroup } from "./group_equations.ts";
import type { TruncationKind } from "./options.ts";
import type { OutputMetrics } from "./output_metrics.ts";
import type { Precision } from "./product_sum.ts";
import type { SiteReport, SiteTaskReport, SystemFigures } from "./report.ts";
import { alikeGroups, solveAlike } from "./solve_alike.ts";
import { solveInMetric } from "./solve_in_metric.ts";
import { type AlphaScore, bestAlpha, scoreAlphas } from "./solver/alpha_search.ts";
import type { Conditioning } from "./solver/factor.ts";
import { factorise } from "./solver/factorise.ts";
import { type SiteSolution, solveSite } from "./solver/solve_site.ts";

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
export interface SolvedSite extends SystemFigures {
  readonly solution: SiteSolution;
}

/** What a solved site tells of itself and of its tasks. */
export function siteReport(
  { solution, ...figures }: SolvedSite,
  stage: string,
  tasks: readonly SiteTaskReport[],
): SiteReport {
  const { backwardError, iterations, rank, metric } = solution;
  return { ...figures, stage, backwardError, iterations, rank, ...(metric ? { metric } : {}), tasks };
}

/**
 * Solves all sites of a stage. Sites with the same c_i share one Gram matrix, and those with the same α one factor of it; on a GPU, also
 * sites whose c_i are alike.
 *
 * @throws {IterisError} `singular_system`
 */
export async function solveStage(problem: StageProblem): Promise<SolvedSite[]> {
  const groups = [...groupedByWeights(problem.sites)];
  const { alpha } = problem;
  if (alpha !== "auto" && mayOverlap(problem)) {
    const alike = keepsFactors(problem) ? alikeGroups(groups) : groups.map((group) => [group] as const);
    return (await concurrently(alike, (some) => solveAlike(problem, alpha, some))).flat();
  }
  return (await inTurn(groups, (group) => solveGroup(problem, group))).flat();
}

/**
 * Whether several systems may be solved at a time, so that none waits alone: where a device other than this processor solves them, and
 * they have few right-hand sides each.
 */
function mayOverlap({ metric, target, moments }: StageProblem): boolean {
  return moments[0]!.own.device.info.backend === "webgpu" && !metric && !target.drift && !target.stream;
}

/** Whether nothing but solutions is asked of factors, and these only in single precision. */
function keepsFactors({ sites, rank = Infinity, precision }: StageProblem): boolean {
  return precision === "single" && sites.every(({ stackedB }) => stackedB.shape[1]! <= rank);
}

function groupedByWeights(sites: readonly SiteProblem[]): Iterable<SiteGroup> {
  return Map.groupBy(sites, ({ weights }) => weights.join()).values();
}

async function solveGroup(problem: StageProblem, group: SiteGroup): Promise<SolvedSite[]> {
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
    const solutionOf = (index: number) => {
      const site = group[index]!;
      const plain = equations.sites[index]!;
      const cut = { rank: problem.rank ?? site.stackedB.shape[1]!, truncation: problem.truncation };
      return problem.metric
        ? solveInMetric(problem, problem.metric, site, plain, factor, equations, alpha, cut)
        : solveSite(factor, plain, alpha, cut);
    };
    const [condition, solutions] = await allOf([factor.condition(), inTurn(indices, solutionOf)]);
    for (const [position, index] of indices.entries()) {
      const { module } = group[index]!.site;
      const solution = solutions[position]!;
      solved.push({ module, solution, alpha, alphaCurve: curves[index]!, solver, condition, shift });
    }
  }
  return solved;
}

async function alphaCurves(
  { split, target, alpha }: StageProblem,
  group: SiteGroup,
  conditioning: Conditioning,
): Promise<AlphaScore[][]> {
  if (alpha !== "auto" || !split) return group.map(() => []);
  using fit = new GroupEquations(group, split.fit, target);
  using heldOut = new GroupEquations(group, split.heldOut, target);
  return await scoreAlphas(fit, heldOut, group.map(({ heldOutEnergy }) => heldOutEnergy), conditioning);
}
