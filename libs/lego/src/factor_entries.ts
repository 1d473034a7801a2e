import type { UnitPool } from "./unit_pool.ts";

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
  /** ‖[a; b]‖_∞ parts of combined pairs, or of the rows of A and columns of B as stacked: the largest magnitudes. */
  largest(combination?: Combination): Promise<PairNorms>;
  /** −1 for each combined a whose entry of largest magnitude is negative, else 1. */
  signs(combination: Pick<Combination, "k" | "p">): Promise<ArrayLike<number>>;
}

/** A norm of each a and of each b. */
export interface PairNorms {
  readonly a: ArrayLike<number>;
  readonly b: ArrayLike<number>;
}

/** ‖[aᵢ; bᵢ]‖_∞ of the units of a pool. */
export async function unitInfinityNorms(
  pool: UnitPool,
  entries: FactorEntries,
): Promise<Float64Array<ArrayBuffer>> {
  const rows = singleRows(pool);
  if (!rows) return joint(await entries.largest({ k: pool.n, p: pool.toA, q: pool.toB }));
  // Units that are single ranks, if scaled, need no product: their norms are those of the stack.
  const { a, b } = await entries.largest();
  return joint({
    a: rows.map((row, i) => Math.abs(pool.toA[i * pool.stacked + row]!) * a[row]!),
    b: rows.map((row, i) => Math.abs(pool.toB[row * pool.n + i]!) * b[row]!),
  });
}

/** The larger of each a's and b's. */
export function joint({ a, b }: PairNorms): Float64Array<ArrayBuffer> {
  return Float64Array.from(a, (x, i) => Math.max(x, b[i]!));
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
