import { concurrently } from "./concurrently.ts";
import { GroupEquations, type SiteGroup } from "./group_equations.ts";
import type { SolvedSite, StageProblem } from "./solve_stage.ts";
import { factorise } from "./solver/factor.ts";
import { solveSite, solveWhole } from "./solver/solve_site.ts";

/**
 * Weights of two systems may differ by up to this factor, beyond one that they have in common, for one factor to serve both: each step of
 * refinement then leaves a ninth of the error at most, and a few more steps cost less than another factor.
 */
const LARGEST_SPREAD = 1.25;

/** Groups that one factor serves, that of the first. */
export type AlikeGroups = readonly [SiteGroup, ...SiteGroup[]];

/** Puts groups together whose c_i are alike. */
export function alikeGroups(groups: readonly SiteGroup[]): AlikeGroups[] {
  const result: [SiteGroup, ...SiteGroup[]][] = [];
  for (const group of groups) {
    const alike = result.find(([first]) => {
      const { least, most } = ratios(group, first);
      return most <= LARGEST_SPREAD * least;
    });
    if (alike) alike.push(group);
    else result.push([group]);
  }
  return result;
}

/** Solves groups at once that each have few right-hand sides. Several are those of solutions that keep their rank. */
export async function solveAlike(
  problem: StageProblem,
  alpha: number,
  [first, ...others]: AlikeGroups,
): Promise<SolvedSite[]> {
  const { moments, target, roundoff, precision, rank, truncation } = problem;
  using owned = new DisposableStack();
  const equationsOf = (group: SiteGroup) => {
    const weights = group[0]!.weights.map((weight) => weight / middleRatio(group, first));
    return owned.use(new GroupEquations(group, moments, target, weights));
  };
  const systems = [equationsOf(first)];
  const [{ gram, ridge, where }] = systems as [GroupEquations];
  const factoring = factorise(gram, alpha * ridge, { roundoff, precision, regularised: alpha > 0, where });
  // Queued while the factor is waited for.
  systems.push(...others.map(equationsOf));
  using factor = await factoring;

  const solveSystem = async ({ gram, ridge, where, group, sites }: GroupEquations, index: number) => {
    using nearby = index > 0 ? factor.nearby(gram, alpha * ridge, where) : undefined;
    gram.dispose();
    return await concurrently(group, async ({ site: { module }, stackedB }, position) => {
      const equations = sites[position]!;
      const cut = { rank: rank ?? stackedB.shape[1]!, truncation };
      const solution = nearby
        ? await solveWhole(nearby, equations, alpha)
        : await solveSite(factor, equations, alpha, cut);
      return { module, solution };
    });
  };
  const [condition, solved] = await Promise.all([factor.condition(), concurrently(systems, solveSystem)]);
  const { solver, shift } = factor;
  return solved.flat().map((site) => ({ ...site, alpha, alphaCurve: [], solver, condition, shift }));
}

/** By what the weights of `group` exceed those of `first`. */
function ratios(group: SiteGroup, first: SiteGroup): { least: number; most: number } {
  const { weights } = first[0]!;
  const all = group[0]!.weights.map((weight, task) => weight / weights[task]!);
  return { least: Math.min(...all), most: Math.max(...all) };
}

function middleRatio(group: SiteGroup, first: SiteGroup): number {
  const { least, most } = ratios(group, first);
  return (least + most) / 2;
}
