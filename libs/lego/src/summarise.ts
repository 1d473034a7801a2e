import { cosine, type DeltaReport, type LegoReport } from "./diagnostics.ts";
import { sum } from "./dense.ts";

/** One module's report and the names of the adapters it was made of, in order. */
export interface ModuleReport<Report extends DeltaReport = DeltaReport> {
  readonly report: Report;
  readonly adapters: readonly string[];
}

/** Figures of a whole merge: all modules' deltas taken as one long vector. */
export interface MergeSummary {
  readonly modules: number;
  /** cos(ΔW', ΔW_t), by adapter name. */
  readonly cosineToSources: Readonly<Record<string, number>>;
  readonly cosineToSum: number;
  /** ‖ΔW'‖ over the mean of ‖ΔW_t‖. */
  readonly normRatio: number;
  /** √(1 − cos²) to the sum. */
  readonly loss: number;
  /** The same for the best approximation of every module at the rank it came out with. */
  readonly bestLoss: number;
}

/** {@linkcode MergeSummary} with what clustering did. */
export interface LegoSummary extends MergeSummary {
  readonly clusters: number;
  readonly largestCluster: number;
  readonly singletons: number;
  /** Part of all clusters that hold units of at least two adapters. */
  readonly mixedShare: number;
}

/** Overall figures from the modules' inner products. */
export function summarise(modules: readonly ModuleReport[]): MergeSummary {
  const merged = sum(modules.map(({ report }) => report.products.merged));
  const total = sum(modules.map(({ report }) => report.products.sum));
  const kept = sum(modules.map(({ report }) => report.energyKept * report.products.sum));
  const sources = new Map<string, { squared: number; inner: number }>();
  for (const { report, adapters } of modules) {
    adapters.forEach((name, t) => {
      const source = sources.get(name) ?? { squared: 0, inner: 0 };
      source.squared += report.products.sources[t]!;
      source.inner += report.products.mergedSources[t]!;
      sources.set(name, source);
    });
  }
  const norms = [...sources.values()].map(({ squared }) => Math.sqrt(squared)).filter((norm) => norm > 0);
  const cosineToSum = cosine(sum(modules.map(({ report }) => report.products.mergedSum)), merged, total);
  return {
    modules: modules.length,
    cosineToSources: Object.fromEntries(
      [...sources].map(([name, { squared, inner }]) => [name, cosine(inner, merged, squared)]),
    ),
    cosineToSum,
    normRatio: norms.length === 0 ? 0 : Math.sqrt(merged) / (sum(norms) / norms.length),
    loss: Math.sqrt(Math.max(0, 1 - cosineToSum ** 2)),
    bestLoss: total === 0 ? 0 : Math.sqrt(Math.max(0, 1 - kept / total)),
  };
}

/** {@linkcode summarise} for modules merged by clustering. */
export function summariseLego(modules: readonly ModuleReport<LegoReport>[]): LegoSummary {
  const clusters = sum(modules.map(({ report }) => report.clusterSizes.length));
  const mixed = sum(modules.map(({ report }) => report.mixedShare * report.clusterSizes.length));
  return {
    ...summarise(modules),
    clusters,
    largestCluster: Math.max(0, ...modules.map(({ report }) => report.clusterSizes[0] ?? 0)),
    singletons: sum(modules.map(({ report }) => report.singletons)),
    mixedShare: clusters === 0 ? 0 : mixed / clusters,
  };
}
