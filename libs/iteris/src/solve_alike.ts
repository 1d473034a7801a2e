import { allOf } from "./concurrently.ts";
import type { RightHandSide } from "./equations.ts";
import { GroupEquations, type SiteGroup } from "./group_equations.ts";
import type { SiteProblem, SolvedSite, StageProblem } from "./solve_stage.ts";
import { withFactor } from "./solver/factorise.ts";
import { type SiteSolution, solveSite, solveWhole } from "./solver/solve_site.ts";

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
  const own = equationsOf(first);
  const conditioning = { roundoff, precision, regularised: alpha > 0, where: own.where };
  return await withFactor(own.gram, alpha * own.ridge, conditioning, async (factor) => {
    const rest = others.map(equationsOf);
    const [condition, ...solved] = await allOf([
      factor.condition(),
      solveEach(
        own,
        (equations, { stackedB }) =>
          solveSite(factor, equations, alpha, { rank: rank ?? stackedB.shape[1]!, truncation }),
      ),
      ...rest.map(async (system) => {
        using nearby = factor.nearby(system.gram, alpha * system.ridge, system.where);
        return await solveEach(system, (equations) => solveWhole(nearby, equations, alpha));
      }),
    ]);
    const { solver, shift } = factor;
    return solved.flat().map((site) => ({ ...site, alpha, alphaCurve: [], solver, condition, shift }));
  });
}

/** Solves the sites of a group at once. */
async function solveEach(
  { group, sites }: GroupEquations,
  solve: (equations: RightHandSide, site: SiteProblem) => Promise<SiteSolution>,
): Promise<Pick<SolvedSite, "module" | "solution">[]> {
  return await allOf(group.map(async (site, index) => ({
    module: site.site.module,
    solution: await solve(sites[index]!, site),
  })));
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
