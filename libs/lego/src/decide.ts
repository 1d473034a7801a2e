import { balancePairs } from "./balance.ts";
import { cluster, type Clustering } from "./cluster.ts";
import { deltaReport, type LegoReport, legoReport } from "./diagnostics.ts";
import type { Combination, FactorEntries } from "./factor_entries.ts";
import { overStack, scaledPairs } from "./forms.ts";
import { innerProducts } from "./inner_products.ts";
import { type LegoOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { outputScale } from "./output_scale.ts";
import { clusterMembers } from "./partition.ts";
import { clusterCount } from "./rank.ts";
import { representatives } from "./representatives.ts";
import { applyRemainingFactors, reweight } from "./reweight.ts";
import { argmaxSigns, kernelSigns } from "./signs.ts";
import { similarity } from "./similarity.ts";
import { formUnits, type StackedFactors, type UnitPool } from "./unit_pool.ts";

/** A minimal semantic unit by name: an adapter, and which of its ranks (or singular triplets). */
export interface Unit {
  readonly adapter: number;
  readonly index: number;
}

/** How a module is to be merged: A' = P A and B' = B Q over the stacked factors, as stored. */
export interface Decision extends Combination {
  /** What came together. */
  readonly clusters: readonly (readonly Unit[])[];
  readonly report: LegoReport;
}

/**
 * LoRA-LEGO for one module, decided in float64 from Gram matrices: units, clusters, representatives, both reweightings
 * and the report. The factors themselves are only asked for single entries, through `entries`, where an option needs
 * them (`parameter_reweight: "inf"`, `sign: "argmax"`).
 *
 * The result has `k` = 0 when every delta is zero.
 *
 * @throws {LegoError} `rank_out_of_range`, `invalid_option`, `unknown_option`
 */
export async function decide(
  stack: StackedFactors,
  options: LegoOptions,
  entries: FactorEntries,
): Promise<Decision> {
  const resolved = resolveOptions(options);
  const formed = formUnits(stack, resolved);
  const clusters = clusterCount(resolved.rank, formed);
  const turned = resolved.sign === "argmax" ? await argmaxSigns(formed, entries) : formed;
  const kernel = similarity(turned, resolved);
  const clustering = turned.n === 0
    ? { labels: [], inertia: 0 }
    : cluster(kernel, turned.n, clusters, turned.owners, resolved);
  const members = clusterMembers(clustering.labels);
  const pool = resolved.sign === "kernel" ? kernelSigns(turned, members) : turned;
  return await finish(pool, kernel, clustering, members, resolved, entries);
}

/** {@linkcode decide}, or something that runs it elsewhere, in a worker for one. */
export type Decide = typeof decide;

async function finish(
  pool: UnitPool,
  kernel: Float64Array,
  clustering: Clustering,
  members: readonly (readonly number[])[],
  options: ResolvedOptions,
  entries: FactorEntries,
): Promise<Decision> {
  const plain = representatives(pool, members, options.representative);
  const reweighted = await reweight(pool, plain, options.parameter_reweight, entries);
  const unscaled = balancePairs(pool, applyRemainingFactors(pool, reweighted));
  const products = innerProducts(pool, unscaled);
  const scale = outputScale(options.output_scale, pool, unscaled.k, products);
  // Split evenly (the sign onto b), so that the pairs stay balanced.
  const root = Math.sqrt(Math.abs(scale));
  const a = new Array<number>(unscaled.k).fill(root);
  const b = new Array<number>(unscaled.k).fill(Math.sign(scale) * root);
  const pairs = scaledPairs(unscaled, pool.n, a, b);
  const report = legoReport(
    pool,
    kernel,
    clustering,
    deltaReport(pool, pairs.k, innerProducts(pool, pairs)),
    scale,
  );
  const clusters = members.map((cluster) =>
    cluster.map((unit) => ({ adapter: pool.owners[unit]!, index: pool.indices[unit]! }))
  );
  return { ...overStack(pool, pairs), clusters, report };
}
