import { product, transposed } from "./dense.ts";
import type { Combination } from "./factor_entries.ts";
import type { UnitPool } from "./unit_pool.ts";

/**
 * Frobenius inner products among the merged delta ΔW', the deltas ΔW_t of the adapters and their sum, in Gram space:
 * ⟨X, Y⟩ = tr((Q_Xᵀ G_B Q_Y)(P_Y G_A P_Xᵀ)). No delta is ever formed.
 */
export interface InnerProducts {
  /** ‖ΔW'‖². */
  readonly merged: number;
  /** ‖Σ ΔW_t‖². */
  readonly sum: number;
  /** ‖ΔW_t‖², by adapter. */
  readonly sources: readonly number[];
  /** ⟨ΔW_s, ΔW_t⟩, by adapter and adapter. */
  readonly between: readonly (readonly number[])[];
  /** ⟨ΔW', Σ ΔW_t⟩. */
  readonly mergedSum: number;
  /** ⟨ΔW', ΔW_t⟩, by adapter. */
  readonly mergedSources: readonly number[];
}

/** The inner products of the adapters' deltas alone. */
function sourceProducts(pool: UnitPool): Pick<InnerProducts, "sum" | "sources" | "between"> {
  const { n, gramA, gramB, owners, factors } = pool;
  const between = Array.from({ length: pool.adapters }, () => new Array<number>(pool.adapters).fill(0));
  let sum = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const term = factors[i]! * factors[j]! * gramA[i * n + j]! * gramB[i * n + j]!;
      sum += term;
      between[owners[i]!]![owners[j]!]! += term;
    }
  }
  return { sum: Math.max(0, sum), sources: between.map((row, t) => Math.max(0, row[t]!)), between };
}

/** All inner products of the delta that `pairs` over the units make. */
export function innerProducts(pool: UnitPool, { k, p, q }: Combination): InnerProducts {
  const { n, gramA, gramB, owners, factors } = pool;
  const qRows = transposed(q, n, k);
  const towardsA = product(p, gramA, k, n, n);
  const towardsB = product(qRows, gramB, k, n, n);
  const mergedSources = new Array<number>(pool.adapters).fill(0);
  let mergedSum = 0;
  for (let i = 0; i < n; i++) {
    let term = 0;
    for (let c = 0; c < k; c++) term += towardsA[c * n + i]! * towardsB[c * n + i]!;
    mergedSources[owners[i]!]! += factors[i]! * term;
    mergedSum += factors[i]! * term;
  }
  const formA = product(towardsA, transposed(p, k, n), k, n, k);
  const formB = product(towardsB, q, k, n, k);
  const merged = formA.reduce((total, x, index) => total + x * formB[index]!, 0);
  return { merged: Math.max(0, merged), mergedSum, mergedSources, ...sourceProducts(pool) };
}
