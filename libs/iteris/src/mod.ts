/** IterIS: merging adapters by what the base model sees. */
export * from "./base_model.ts";
export * from "./captures/captured_site.ts";
export { type CapturedOptions, solveCaptured, type SolvedCapture } from "./captures/solve_captured.ts";
export * from "./errors.ts";
export * from "./iteris.ts";
export * from "./iteris_plus.ts";
export type {
  AdaptiveWeights,
  CommonOptions,
  IterisOptions,
  IterisPlusOptions,
  PrecisionOption,
  TruncationKind,
} from "./options.ts";
export type { OutputErrors } from "./output_error.ts";
export * from "./output_metrics.ts";
export * from "./report.ts";
export * from "./request.ts";
export type { Merged } from "./run.ts";
export { defaultHostSolverLimit } from "./run_context.ts";
export type { AlphaScore } from "./solver/alpha_search.ts";
export type { MetricReport, RankReport } from "./solver/solve_site.ts";
export * from "./splices.ts";
export { tokenWeights } from "./token_weights.ts";
