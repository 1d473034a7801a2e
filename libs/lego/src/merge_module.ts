import { type Decide, decide, type Unit } from "./decide.ts";
import type { LegoReport } from "./diagnostics.ts";
import { type AdapterFactors, FactorStack, type MergedFactors } from "./factor_stack.ts";
import type { LegoOptions } from "./options.ts";

/** A merged module and how it came out. */
export interface LegoResult extends MergedFactors {
  /** What came together: the units of each cluster. */
  readonly clusters: readonly (readonly Unit[])[];
  readonly report: LegoReport;
}

/**
 * Merges one module of several adapters by LoRA-LEGO (arXiv 2409.16167): Gram matrices and the two products A' = P A,
 * B' = B Q on the device, everything between in float64 on the CPU. No delta is formed.
 *
 * The result's rank is the `rank` option, or less where there are fewer non-zero units; adapters that are zero altogether
 * give one pair of zeros. ‖a_i‖ = ‖b_i‖ for every pair. The inputs stay alive; the caller disposes the result.
 *
 * @param adapters the adapters that have this module; one alone is pruned or re-expressed
 * @param options see {@linkcode LegoOptions}; default: the preset `lego`
 * @param decideModule where the float64 part runs; default: here
 * @throws {LegoError} `rank_out_of_range`, `invalid_option`, `unknown_option`, `shape_mismatch`, `no_adapters`, `not_finite`
 * @throws {TensorError} from the device
 */
export async function mergeModule(
  adapters: readonly AdapterFactors[],
  options: LegoOptions = {},
  decideModule: Decide = decide,
): Promise<LegoResult> {
  using stack = new FactorStack(adapters);
  const { clusters, report, ...combination } = await decideModule(await stack.describe(), options, stack);
  return { ...stack.combine(combination), clusters, report };
}
