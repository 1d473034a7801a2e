import type { Delta, Deltas } from "@lora-loom/model";
import { add, concatColumns, concatRows } from "@lora-loom/tensor";

/**
 * Σ_i factor · ΔW_i without adding anything up: factors are stacked, A = [A_1; …; A_N], B = factor · [B_1 … B_N].
 *
 * @param factor 1 for the sum of the deltas, 1/N for their mean
 */
export function summedDeltas(parts: readonly Deltas[], factor: number): Deltas {
  const modules = new Set(parts.flatMap((deltas) => [...deltas.keys()]));
  const sums = new Map<string, Delta>();
  for (const module of modules) {
    const present = parts.flatMap((deltas) => deltas.get(module) ?? []);
    using stacked = concatColumns(present.map(({ b }) => b));
    using nothing = stacked.device.zeros(stacked.shape);
    sums.set(module, {
      a: concatRows(present.map(({ a }) => a)),
      b: add(stacked, nothing, { alpha: factor }),
    });
  }
  return sums;
}
