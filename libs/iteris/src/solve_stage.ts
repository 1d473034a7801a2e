import type { Tensor } from "@lora-loom/tensor";
import type { Stage } from "./base_model.ts";
import {
  type AdaptedSite,
  type Moments,
  ridgeOf,
  type RightHandSide,
  rightHandSide,
  type Target,
  weightedGram,
} from "./equations.ts";
import type { TruncationKind } from "./options.ts";
import { type AlphaScore, bestAlpha, scoreAlphas } from "./solver/alpha_search.ts";
import { type Conditioning, type Factor, factorise } from "./solver/factor.ts";
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
  readonly roundoff: number;
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
      const cut = { rank: problem.rank ?? stackedB.shape[1]!, truncation: problem.truncation };
      const solution = await solveSite(factor, equations.sites[index]!, alpha, cut);
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
