/** Merging LoRA adapters: recipes, methods, planning, running and reports. */
export * from "./errors.ts";
export * from "./recipe/document.ts";
export * from "./recipe/json_schema.ts";
export * from "./recipe/load.ts";
export * from "./recipe/nearest.ts";
export * from "./recipe/recipe.ts";
export * from "./methods/method.ts";
export * from "./methods/parameters.ts";
export * from "./methods/registry.ts";
export * from "./plan/plan.ts";
export * from "./engine/progress.ts";
export { type MergeOptions, runMerge } from "./engine/run_merge.ts";
export { peakResidentBytes } from "./engine/memory.ts";
export * from "./report/figures.ts";
export * from "./report/summary.ts";
export * from "./analysis/distance.ts";
export * from "./analysis/inspect.ts";
export { VERSIONS } from "./versions.ts";
