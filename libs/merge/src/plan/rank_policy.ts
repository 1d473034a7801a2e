import { type ParameterForm, readForm } from "../methods/parameters.ts";
import type { ParameterValue } from "../recipe/recipe.ts";

/** What may stand instead of a fixed rank: the ranks are then chosen from the singular values of the merged deltas. */
export const RANK_FORMS: readonly ParameterForm[] = [
  { word: "energy", above: 0, maximum: 1, help: "in each module the least rank that keeps this part of Σσ²" },
  {
    word: "uniform",
    above: 0,
    maximum: 1,
    help: "the least rank for all modules that keeps this part of Σσ² over all",
  },
  {
    word: "budget",
    above: 0,
    help: "as many parameters as this rank everywhere would take, spread where they keep most",
  },
];

/** How ranks are chosen once the singular values are known. */
export interface RankPolicy {
  readonly kind: "energy" | "uniform" | "budget";
  readonly number: number;
}

/** The policy that a `rank` names; undefined for a number or nothing. */
export function rankPolicy(rank: ParameterValue | undefined): RankPolicy | undefined {
  const form = readForm(RANK_FORMS, rank);
  return form && { kind: form.word as RankPolicy["kind"], number: form.number };
}

/** The most that a `rank` allows: itself when it is a number; no limit for a policy; undefined when there is none. */
export function rankLimit(rank: ParameterValue | undefined): number | undefined {
  if (rankPolicy(rank)) return Infinity;
  return rank as number | undefined;
}

/** What a choice of ranks looks at. */
export interface ModuleSpectrum {
  /** Singular values of the merged delta, descending. */
  readonly sigma: ArrayLike<number>;
  /** Parameters that one rank takes: in + out. */
  readonly cost: number;
}

/** What rounding may take from a sum that should reach its whole. */
const ROUNDING = 1e-12;

function energyOf(sigma: ArrayLike<number>, rank = sigma.length): number {
  let sum = 0;
  for (let i = 0; i < Math.min(rank, sigma.length); i++) sum += sigma[i]! ** 2;
  return sum;
}

/** The least rank, from 1 on, for which `kept` reaches a part of its value at `most`. */
function leastRank(kept: (rank: number) => number, most: number, part: number): number {
  const wanted = part * kept(most) * (1 - ROUNDING);
  let rank = 1;
  while (rank < most && kept(rank) < wanted) rank++;
  return rank;
}

/**
 * Spends a budget of parameters on the singular values that carry most energy per parameter: where all modules cost the
 * same, no other choice keeps more in total. Every module gets rank 1, since a rank cannot be 0.
 */
function spreadBudget(modules: readonly ModuleSpectrum[], rank: number): number[] {
  const ranks = modules.map(() => 1);
  let left = modules.reduce((sum, { cost }) => sum + (rank - 1) * cost, 0);
  const offers = modules.flatMap(({ sigma, cost }, module) =>
    Array.from(
      { length: Math.max(0, sigma.length - 1) },
      (_, i) => ({ module, cost, gain: sigma[i + 1]! ** 2 / cost }),
    )
  );
  for (const { module, cost } of offers.sort((x, y) => y.gain - x.gain || x.module - y.module)) {
    if (cost > left) continue;
    ranks[module]!++;
    left -= cost;
  }
  return ranks;
}

/** The rank of every module under a policy. */
export function chooseRanks({ kind, number }: RankPolicy, modules: readonly ModuleSpectrum[]): number[] {
  if (kind === "budget") return spreadBudget(modules, number);
  if (kind === "energy") {
    return modules.map(({ sigma }) =>
      leastRank((rank) => energyOf(sigma, rank), Math.max(1, sigma.length), number)
    );
  }
  const most = Math.max(1, ...modules.map(({ sigma }) => sigma.length));
  const together = (rank: number) => modules.reduce((sum, { sigma }) => sum + energyOf(sigma, rank), 0);
  const rank = leastRank(together, most, number);
  return modules.map(({ sigma }) => Math.max(1, Math.min(rank, sigma.length)));
}
