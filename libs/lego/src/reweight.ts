import { type FactorEntries, joint, unitInfinityNorms } from "./factor_entries.ts";
import { overStack, scaledPairs, squaredNorms } from "./forms.ts";
import type { ResolvedOptions } from "./options.ts";
import type { Representatives } from "./representatives.ts";
import type { UnitPool } from "./unit_pool.ts";

/**
 * Parameter reweighting: every representative μ = [a; b] is multiplied by the mean norm of its members over its own, so a
 * mean of unlike units is not shorter than they are. The delta b aᵀ changes by the square of that factor.
 */
export async function reweight(
  pool: UnitPool,
  pairs: Representatives,
  norm: ResolvedOptions["parameter_reweight"],
  entries: FactorEntries,
): Promise<Representatives> {
  if (norm === "none") return pairs;
  const { units, own } = norm === "inf" ? await infinity(pool, pairs, entries) : euclidean(pool, pairs);
  const factors = pairs.members.map((members, c) => {
    const mean = members.reduce((total, unit) => total + units[unit]!, 0) / members.length;
    return own[c]! > 0 ? mean / own[c]! : 1;
  });
  return scaledPairs(pairs, pool.n, factors, factors);
}

async function infinity(pool: UnitPool, pairs: Representatives, entries: FactorEntries) {
  return {
    units: await unitInfinityNorms(pool, entries),
    own: joint(await entries.largest(overStack(pool, pairs))),
  };
}

function euclidean(pool: UnitPool, pairs: Representatives) {
  const { a, b } = squaredNorms(pool, pairs);
  return {
    units: Float64Array.from(
      { length: pool.n },
      (_, i) => Math.sqrt(pool.gramA[i * pool.n + i]! + pool.gramB[i * pool.n + i]!),
    ),
    own: a.map((x, c) => Math.sqrt(x + b[c]!)),
  };
}

/** Multiplies each b by the mean of its members' remaining factors. */
export function applyRemainingFactors(pool: UnitPool, pairs: Representatives): Representatives {
  const means = pairs.members.map((members) =>
    members.reduce((total, unit) => total + pool.factors[unit]!, 0) / members.length
  );
  return scaledPairs(pairs, pool.n, means.map(() => 1), means);
}
