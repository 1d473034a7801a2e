/** LoRA-LEGO: many adapters' minimal semantic units, clustered and recombined into one adapter of any rank. */
export * from "./cluster.ts";
export * from "./decide.ts";
export * from "./diagnostics.ts";
export * from "./errors.ts";
export * from "./options.ts";
export type { Combination, FactorEntries, PairNorms } from "./factor_entries.ts";
export type { InnerProducts } from "./inner_products.ts";
export type { StackedFactors } from "./unit_pool.ts";
export type { AdapterFactors, MergedFactors } from "./factor_stack.ts";
export * from "./merge_module.ts";
export * from "./truncate_sum.ts";
export * from "./summarise.ts";
