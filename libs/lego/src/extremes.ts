import type { UnitPool } from "./unit_pool.ts";

/** The least and greatest entries of each of some pairs (a, b). */
export interface Extremes {
  readonly aMin: ArrayLike<number>;
  readonly aMax: ArrayLike<number>;
  readonly bMin: ArrayLike<number>;
  readonly bMax: ArrayLike<number>;
}

/** Coefficients of `k` pairs over the rows of the stack: aᶜ = Σⱼ p[c, j] · (row j of A), bᶜ = Σⱼ q[j, c] · (column j of B). */
export interface Combination {
  readonly k: number;
  /** k × N. */
  readonly p: Float64Array;
  /** N × k. */
  readonly q: Float64Array;
}

/** What only the factors themselves can tell, wherever they are: single entries, which Gram matrices do not show. */
export interface FactorEntries {
  /** Extreme entries of the rows of A and columns of B as stacked. */
  stack(): Promise<Extremes>;
  /** Extreme entries of combinations of them. */
  combination(combination: Combination): Promise<Extremes>;
}

/** Extreme entries of the units of a pool. */
export async function unitExtremes(pool: UnitPool, entries: FactorEntries): Promise<Extremes> {
  const single = singleRows(pool);
  if (!single) return await entries.combination({ k: pool.n, p: pool.toA, q: pool.toB });
  const stack = await entries.stack();
  const scaled = (min: ArrayLike<number>, max: ArrayLike<number>, factor: (i: number) => number) =>
    single.map((row, i) => {
      const x = factor(i) * min[row]!, y = factor(i) * max[row]!;
      return [Math.min(x, y), Math.max(x, y)] as const;
    });
  const a = scaled(stack.aMin, stack.aMax, (i) => pool.toA[i * pool.stacked + single[i]!]!);
  const b = scaled(stack.bMin, stack.bMax, (i) => pool.toB[single[i]! * pool.n + i]!);
  return {
    aMin: a.map(([min]) => min),
    aMax: a.map(([, max]) => max),
    bMin: b.map(([min]) => min),
    bMax: b.map(([, max]) => max),
  };
}

/** The one row of the stack that each unit is made of; undefined if some unit combines several. */
function singleRows({ n, stacked, toA }: UnitPool): number[] | undefined {
  const rows: number[] = [];
  for (let i = 0; i < n; i++) {
    let found = -1;
    for (let j = 0; j < stacked; j++) {
      if (toA[i * stacked + j] === 0) continue;
      if (found >= 0) return undefined;
      found = j;
    }
    rows.push(found);
  }
  return rows;
}

/** ‖[aᵢ; bᵢ]‖_∞ of each pair. */
export function infinityNorms({ aMin, aMax, bMin, bMax }: Extremes): Float64Array<ArrayBuffer> {
  return Float64Array.from(
    { length: aMin.length },
    (_, i) => Math.max(Math.abs(aMin[i]!), Math.abs(aMax[i]!), Math.abs(bMin[i]!), Math.abs(bMax[i]!)),
  );
}
