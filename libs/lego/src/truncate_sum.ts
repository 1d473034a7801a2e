import { truncateFromGrams, type Truncation } from "@lora-loom/tensor";
import { type DeltaReport, deltaReport } from "./diagnostics.ts";
import type { Combination } from "./factor_entries.ts";
import { type AdapterFactors, FactorStack, type MergedFactors } from "./factor_stack.ts";
import { overStack } from "./forms.ts";
import { innerProducts } from "./inner_products.ts";
import { clusterCount } from "./rank.ts";
import { formUnits, type UnitPool } from "./unit_pool.ts";

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
 * @throws {LegoError} `rank_out_of_range`, `shape_mismatch`, `no_adapters`, `not_finite`
 */
export async function truncateSum(
  adapters: readonly AdapterFactors[],
  options: { readonly rank?: number | undefined } = {},
): Promise<TruncationResult> {
  using stack = new FactorStack(adapters);
  const pool = formUnits(await stack.describe(), { basis: "native", alpha_fold: "b" });
  const pairs = bestPairs(pool, clusterCount(options.rank, pool), NOISE[adapters[0]!.a.device.info.backend]);
  const report = deltaReport(pool, pairs.k, innerProducts(pool, pairs), pairs.sigma.map((x) => x * x));
  return { ...stack.combine(overStack(pool, pairs)), report };
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
