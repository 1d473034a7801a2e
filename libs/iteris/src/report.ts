import type { OutputErrors } from "./output_error.ts";
import type { AlphaScore } from "./solver/alpha_search.ts";
import type { Factor } from "./solver/factor.ts";
import type { MetricReport, RankReport } from "./solver/solve_site.ts";

/** One task at one site. */
export interface SiteTaskReport {
  readonly task: string;
  /** False where the adapter lacks the module: its target is no change. */
  readonly hasModule: boolean;
  /** λ_i; 1 without adaptive weights. */
  readonly adaptiveWeight: number;
  /** n_i = ‖S_i‖_F. */
  readonly gramNorm: number;
  /** k_i = ‖C_i‖_F. */
  readonly crossNorm: number;
  /** Relative output errors on the calibration text: of the merged delta, and of the sum and the mean of the deltas. */
  readonly errors: OutputErrors;
}

/** The system that a site was solved with. */
export interface SystemFigures {
  readonly module: string;
  readonly alpha: number;
  /** What `alpha: auto` tried; empty otherwise. */
  readonly alphaCurve: readonly AlphaScore[];
  readonly solver: Factor["solver"];
  /** Estimated condition number of the system that was factored for it, scaled to a unit diagonal. */
  readonly condition: number;
  /** Extra diagonal of the factor used for refinement; 0 as a rule. */
  readonly shift: number;
}

/** One solved site. */
export interface SiteReport extends SystemFigures {
  readonly stage: string;
  /** ‖N − W G‖_F / (‖W‖_F ‖G‖_F), of the system scaled to a diagonal near 1. */
  readonly backwardError: number;
  /** Refinement steps: more where the factor is that of another module's system, much alike. */
  readonly iterations: number;
  readonly rank: RankReport;
  /** Of the system with output metrics, where there are any: conjugate-gradient steps, and the residual they left. */
  readonly metric?: MetricReport;
  readonly tasks: readonly SiteTaskReport[];
}

/** What a merge tells about itself. */
export interface MergeReport {
  /** In execution order. */
  readonly sites: readonly SiteReport[];
  /** Samples and tokens used of each task. */
  readonly tasks: readonly { readonly task: string; readonly samples: number; readonly tokens: number }[];
  /** Modules that some adapters lack. */
  readonly missing: readonly { readonly task: string; readonly module: string }[];
  /** Passes over the stages: 1 for a sweep. */
  readonly passes: number;
  /** The largest relative change of a merged delta in each pass after the first. */
  readonly changes: readonly number[];
  /** Mean over sites and tasks of the relative output errors. */
  readonly meanErrors: OutputErrors;
}
