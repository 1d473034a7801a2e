import {
  decide,
  type DeltaReport,
  type LegoOptions,
  type LegoReport,
  mergeModule,
  type ResolvedOptions,
} from "@lora-loom/lego";
import type { DeltaFigures } from "../report/figures.ts";
import type { MergedFactors, MethodFigures, ModuleContext, WeightedFactors } from "./method.ts";

/** The inner products of a report of `@lora-loom/lego` in this library's form: there an adapter's weight is part of its delta. */
export function deltasOf(
  { products, energyKept }: DeltaReport,
  sources: readonly WeightedFactors[],
): DeltaFigures {
  return {
    sources: sources.map(({ adapter, weight }, index) => ({
      adapter,
      squares: weight === 0 ? 0 : products.sources[index]! / weight ** 2,
      inner: weight === 0 ? 0 : products.mergedSources[index]! / weight,
    })),
    between: sources.map(({ weight }, s) =>
      sources.map((other, t) => {
        const factor = weight * other.weight;
        return factor === 0 ? 0 : products.between[s]![t]! / factor;
      })
    ),
    squares: products.merged,
    sumSquares: products.sum,
    sumInner: products.mergedSum,
    bestSquares: energyKept * products.sum,
  };
}

function figuresOf(report: LegoReport): MethodFigures {
  return {
    cluster_sizes: report.clusterSizes,
    mixed_cluster_share: report.mixedShare,
    singletons: report.singletons,
    cosine_a_within: report.cosinesA.within,
    cosine_a_across: report.cosinesA.across,
    cosine_b_within: report.cosinesB.within,
    cosine_b_across: report.cosinesB.across,
    inertia: report.inertia,
    inertia_bound: report.inertiaBound,
    output_scale: report.outputScale,
    effective_rank_of_sum: report.effectiveRank,
    units: report.units,
    zero_units: report.zeroUnits,
    ...(report.restartAgreement === undefined ? {} : { restart_agreement: report.restartAgreement }),
  };
}

/** Merges one module with LoRA-LEGO; the recipe's parameters have the names of the library's options. */
export async function mergeByClusters(
  preset: ResolvedOptions,
  sources: readonly WeightedFactors[],
  { parameters, rank, seed, decisions }: ModuleContext,
): Promise<MergedFactors> {
  const options: LegoOptions = { ...preset, ...parameters, rank, seed };
  const { a, b, report } = await mergeModule(
    sources,
    options,
    decisions ? (...input) => decisions.clusters(...input) : decide,
  );
  return { a, b, deltas: deltasOf(report, sources), figures: figuresOf(report) };
}
