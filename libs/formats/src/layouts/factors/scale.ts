import type { ModuleSpec } from "../../adapter.ts";
import type { StoredModule } from "./write.ts";

/** The one scale that all modules have, where they do. */
export function commonScale(modules: readonly Pick<ModuleSpec, "scale">[]): number | undefined {
  const [first, ...others] = modules.map(({ scale }) => scale ?? 1);
  return others.every((scale) => scale === first) ? first : undefined;
}

/**
 * The scalar tensor of an alpha, such that alpha / rank is the scale: in float32 where that is exact, as trainers write
 * it, else in float64.
 */
export function alphaTensor(
  name: string,
  alpha: number,
  rank: number,
  scale: number,
): StoredModule["constants"][number] {
  const isExact = Math.fround(alpha) / rank === scale;
  const value = isExact ? new Float32Array([alpha]) : new Float64Array([alpha]);
  return {
    entry: { name, dtype: isExact ? "F32" : "F64", shape: [] },
    bytes: new Uint8Array(value.buffer),
  };
}
