import { truncateFromGrams, type Truncation } from "@lora-loom/tensor";
import { type DeltaReport, deltaReport } from "./diagnostics.ts";
import type { Combination } from "./factor_entries.ts";
import { type AdapterFactors, FactorStack, type MergedFactors } from "./factor_stack.ts";
import { overStack } from "./forms.ts";
import { innerProducts } from "./inner_products.ts";
import { clusterCount } from "./rank.ts";
import { formUnits, type StackedFactors, type UnitPool } from "./unit_pool.ts";

/** The best approximation of the sum and how close it is. */
export interface TruncationResult extends MergedFactors {
  readonly report: DeltaReport;
}

/** Singular values below this part of the largest are rounding: of float32 Gram matrices, and of float64 ones. */
const NOISE = { webgpu: 1e-6, cpu: 1e-12 } as const;

/**
 * The best approximation of rank `rank` (in the Frobenius norm) of the sum of the adapters' deltas Σ scale · weight · b a,
 * from Gram matrices: nothing larger than the stacked factors is formed. Same inputs and outputs as `mergeModule`.
 *
 * @param options.rank from 1 to Σr; default: twice the mean rank, at most Σr
 * @param truncate where the float64 part runs; default: here
 * @throws {LegoError} `rank_out_of_range`, `shape_mismatch`, `no_adapters`, `not_finite`
 */
export async function truncateSum(
  adapters: readonly AdapterFactors[],
  options: { readonly rank?: number | undefined } = {},
  truncate: (
    ...input: Parameters<typeof decideTruncation>
  ) => TruncationDecision | Promise<TruncationDecision> = decideTruncation,
): Promise<TruncationResult> {
  using stack = new FactorStack(adapters);
  const tolerance = NOISE[adapters[0]!.a.device.info.backend];
  const { report, ...combination } = await truncate(await stack.describe(), { ...options, tolerance });
  return { ...stack.combine(combination), report };
}

/** How a sum is to be cut: A' = P A and B' = B Q over the stacked factors. */
export interface TruncationDecision extends Combination {
  readonly report: DeltaReport;
}

/** The float64 part of {@linkcode truncateSum}: singular values below `tolerance` times the largest are noise. */
export function decideTruncation(
  stack: StackedFactors,
  { rank, tolerance }: { readonly rank?: number | undefined; readonly tolerance: number },
): TruncationDecision {
  const pool = formUnits(stack, { basis: "native", alpha_fold: "b" });
  const pairs = bestPairs(pool, clusterCount(rank, pool), tolerance);
  const report = deltaReport(pool, pairs.k, innerProducts(pool, pairs), pairs.sigma.map((x) => x * x));
  return { ...overStack(pool, pairs), report };
}

const EMPTY = new Float64Array(0);

function bestPairs(pool: UnitPool, k: number, tolerance: number): Combination & Pick<Truncation, "sigma"> {
  if (pool.n === 0) return { k: 0, p: EMPTY, q: EMPTY, sigma: EMPTY };
  const { rank, p, q, sigma } = truncateFromGrams({
    gramA: pool.gramA,
    gramB: pool.gramB,
    n: pool.n,
    k,
    tolerance,
  });
  return { k: rank, p, q, sigma };
}
