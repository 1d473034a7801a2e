/** Helpers for tests only: tolerances and float64 oracles. Assertions are imported as `@std/assert`. */
export * from "./tolerance.ts";
export * from "./random.ts";
export * from "./shard_model.ts";
export * from "./temporary_folder.ts";
