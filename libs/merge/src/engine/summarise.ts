import type { ServingReport } from "@lora-loom/formats";
import type { RefinementRecord } from "../refine/report.ts";
import { qualityOf } from "../report/figures.ts";
import type { InputRecord, MergeRecord } from "../report/record.ts";
import type { MergeSummary } from "../report/summary.ts";
import { VERSIONS } from "../versions.ts";
import { peakResidentBytes } from "./memory.ts";
import type { MergedModules, MergeRun, MergeWatch } from "./merge_run.ts";

/** What a merge waited for so far. */
export function secondsOf(watch: MergeWatch): MergeSummary["seconds"] {
  return {
    total: watch.total,
    read: watch.seconds("read"),
    compute: watch.seconds("compute"),
    write: watch.seconds("write"),
  };
}

/**
 * What a merge did, in a few figures.
 *
 * @param resumedSteps that an interrupted run had done
 */
export function summarise(
  { recipe, plan, device, watch }: MergeRun,
  { modules, outcome }: MergedModules,
  refinement: RefinementRecord | undefined,
  resumedSteps: number,
): MergeSummary {
  return {
    output: recipe.output.path,
    method: recipe.method,
    adapters: recipe.adapters.map(({ name, path, weight }) => ({ name, path, weight })),
    modules: plan.modules.length,
    rank: plan.rank,
    device: { name: device.info.name, backend: device.info.backend },
    seconds: secondsOf(watch),
    peak_rss_bytes: peakResidentBytes(),
    peak_gpu_bytes: device.info.backend === "cpu" ? 0 : device.memory.peakBytes,
    ...(outcome.predicted ? { predicted: outcome.predicted } : {}),
    quality: {
      ...qualityOf(modules.map(({ deltas }) => deltas), recipe.adapters.map(({ name }) => name)),
      ...outcome.quality,
    },
    ...(refinement ? { refinement: summariseRefinement(refinement) } : {}),
    warnings: [...plan.warnings, ...outcome.warnings ?? []],
    ...(resumedSteps > 0 ? { resumed: { steps: resumedSteps } } : {}),
  };
}

function summariseRefinement(
  { steps_done, kept_step, losses, agreement }: RefinementRecord,
): NonNullable<MergeSummary["refinement"]> {
  return {
    steps_done,
    kept_step,
    first_loss: losses[0] ?? null,
    last_loss: losses.at(-1) ?? null,
    agreement_before: agreement[0]?.mean ?? null,
  };
}

/** Everything that a finished merge knows about itself. */
export function recordOf(
  { recipe, plan, device }: MergeRun,
  { modules, outcome }: MergedModules,
  { seconds, quality, warnings, resumed }: MergeSummary,
  beside: {
    readonly inputs: readonly InputRecord[];
    readonly serving: ServingReport;
    readonly refinement: RefinementRecord | undefined;
  },
): MergeRecord {
  return {
    recipe,
    rank: plan.rank,
    baseModelName: plan.baseModelName,
    versions: VERSIONS,
    device: device.info,
    seconds,
    quality,
    modules,
    method: outcome.figures ?? {},
    warnings,
    resumed,
    ...beside,
    created: new Date().toISOString(),
  };
}
