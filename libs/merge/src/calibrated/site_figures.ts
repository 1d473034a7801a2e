import type { SiteReport } from "@lora-loom/iteris";
import type { MethodFigures } from "../methods/method.ts";

/** Figures of one module; lists are in the order of the adapters. */
export function siteFigures(site: SiteReport): MethodFigures {
  return {
    alpha: site.alpha,
    condition: site.condition,
    backward_error: site.backwardError,
    solved_rank: site.rank.solved,
    kept_rank: site.rank.kept,
    ...(site.metric ? { metric_steps: site.metric.steps, metric_residual: site.metric.residual } : {}),
    truncation_loss: site.rank.loss,
    plain_truncation_loss: site.rank.plainLoss,
    adaptive_weight: site.tasks.map(({ adaptiveWeight }) => adaptiveWeight),
    output_error: site.tasks.map(({ errors }) => errors.merged),
    output_error_of_sum: site.tasks.map(({ errors }) => errors.sum),
    output_error_of_mean: site.tasks.map(({ errors }) => errors.mean),
  };
}
