import { truncateFromGrams } from "@lora-loom/tensor";
import { congruence, submatrix, transposed } from "./dense.ts";
import type { ResolvedOptions } from "./options.ts";

/**
 * What is known of the stacked factors of one module: A (N × in), all adapters' rows in turn, and B (out × N), all
 * their columns, as stored.
 */
export interface StackedFactors {
  /** A Aᵀ, N × N. */
  readonly gramA: Float64Array;
  /** Bᵀ B, N × N. */
  readonly gramB: Float64Array;
  /** The rank of each adapter; they add up to N. */
  readonly ranks: readonly number[];
  /** scale · weight of each adapter. */
  readonly factors: readonly number[];
}

/**
 * The minimal semantic units of one module in Gram space: unit i is the pair (aᵢ, bᵢ) with aᵢ = Σⱼ toA[i, j] · (row j of
 * A) and bᵢ = Σⱼ toB[j, i] · (column j of B).
 */
export interface UnitPool {
  /** Number of units. */
  readonly n: number;
  /** Number of rows of the stack, N. */
  readonly stacked: number;
  /** ⟨aᵢ, aⱼ⟩, n × n. */
  readonly gramA: Float64Array;
  /** ⟨bᵢ, bⱼ⟩, n × n. */
  readonly gramB: Float64Array;
  /** n × N. */
  readonly toA: Float64Array;
  /** N × n. */
  readonly toB: Float64Array;
  /** The adapter of each unit. */
  readonly owners: readonly number[];
  /** Which of its adapter's ranks (or singular triplets) each unit is. */
  readonly indices: readonly number[];
  /** What remains to be multiplied to b so that Σ factorᵢ bᵢ aᵢᵀ is the sum of the deltas; 1 unless nothing was folded. */
  readonly factors: readonly number[];
  /** Number of adapters, those without units included. */
  readonly adapters: number;
}

/**
 * Forms the units that the options ask for, drops those with a = 0 or b = 0 (their other half would still draw clusters)
 * and puts the rest in an order that does not depend on how the adapters' ranks were ordered.
 */
export function formUnits(
  stack: StackedFactors,
  options: Pick<ResolvedOptions, "basis" | "alpha_fold">,
): UnitPool {
  const candidates = options.basis === "svd" ? singularUnits(stack) : nativeUnits(stack, options.alpha_fold);
  const pool = withGrams(stack, candidates);
  return select(pool, canonicalOrder(pool));
}

type Candidates = Pick<UnitPool, "n" | "toA" | "toB" | "owners" | "indices" | "factors">;

function nativeUnits({ ranks, factors }: StackedFactors, fold: ResolvedOptions["alpha_fold"]): Candidates {
  const owners = ranks.flatMap((rank, adapter) => new Array<number>(rank).fill(adapter));
  const indices = ranks.flatMap((rank) => Array.from({ length: rank }, (_, i) => i));
  const n = owners.length;
  const toA = new Float64Array(n * n);
  const toB = new Float64Array(n * n);
  owners.forEach((adapter, i) => {
    const factor = factors[adapter]!;
    const root = Math.sqrt(Math.abs(factor));
    toA[i * n + i] = fold === "sqrt" ? root : 1;
    toB[i * n + i] = fold === "sqrt" ? Math.sign(factor) * root : fold === "b" ? factor : 1;
  });
  return {
    n,
    toA,
    toB,
    owners,
    indices,
    factors: owners.map((adapter) => fold === "none" ? factors[adapter]! : 1),
  };
}

/** The singular triplets of each factor · B_t A_t, found from the adapter's own blocks of the Gram matrices. */
function singularUnits({ gramA, gramB, ranks, factors }: StackedFactors): Candidates {
  const stacked = ranks.reduce((total, rank) => total + rank, 0);
  const rowsA: Float64Array[] = [];
  const rowsB: Float64Array[] = [];
  const owners: number[] = [];
  const triplets: number[] = [];
  let offset = 0;
  ranks.forEach((rank, adapter) => {
    const indices = Array.from({ length: rank }, (_, i) => offset + i);
    const truncation = truncateFromGrams({
      gramA: submatrix(gramA, stacked, indices),
      gramB: submatrix(gramB, stacked, indices),
      n: rank,
      k: rank,
    });
    const root = Math.sqrt(Math.abs(factors[adapter]!));
    const sign = Math.sign(factors[adapter]!);
    for (let i = 0; i < truncation.rank; i++) {
      const rowA = new Float64Array(stacked);
      const rowB = new Float64Array(stacked);
      for (let j = 0; j < rank; j++) {
        rowA[offset + j] = root * truncation.p[i * rank + j]!;
        rowB[offset + j] = sign * root * truncation.q[j * truncation.rank + i]!;
      }
      rowsA.push(rowA);
      rowsB.push(rowB);
      owners.push(adapter);
      triplets.push(i);
    }
    offset += rank;
  });
  const n = owners.length;
  return {
    n,
    toA: concatenated(rowsA, stacked),
    toB: transposed(concatenated(rowsB, stacked), n, stacked),
    owners,
    indices: triplets,
    factors: owners.map(() => 1),
  };
}

function concatenated(rows: readonly Float64Array[], length: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(rows.length * length);
  rows.forEach((row, i) => out.set(row, i * length));
  return out;
}

function withGrams(stack: StackedFactors, units: Candidates): UnitPool {
  const stacked = stack.ranks.reduce((total, rank) => total + rank, 0);
  return {
    ...units,
    stacked,
    adapters: stack.ranks.length,
    gramA: congruence(units.toA, stack.gramA, units.n, stacked),
    gramB: congruence(transposed(units.toB, stacked, units.n), stack.gramB, units.n, stacked),
  };
}

/** The non-zero units, largest ‖a‖‖b‖ first, which no gauge changes; then largest ‖a‖, then as they came. */
function canonicalOrder({ n, gramA, gramB, factors }: UnitPool): number[] {
  const size = (i: number) => gramA[i * n + i]! * gramB[i * n + i]!;
  return Array.from({ length: n }, (_, i) => i)
    .filter((i) => gramA[i * n + i]! > 0 && gramB[i * n + i]! > 0 && factors[i] !== 0)
    .sort((i, j) => size(j) - size(i) || gramA[j * n + j]! - gramA[i * n + i]! || i - j);
}

function select(pool: UnitPool, indices: readonly number[]): UnitPool {
  const size = indices.length;
  const toA = new Float64Array(size * pool.stacked);
  const toB = new Float64Array(pool.stacked * size);
  indices.forEach((from, to) => {
    toA.set(pool.toA.subarray(from * pool.stacked, (from + 1) * pool.stacked), to * pool.stacked);
    for (let j = 0; j < pool.stacked; j++) toB[j * size + to] = pool.toB[j * pool.n + from]!;
  });
  return {
    ...pool,
    n: size,
    gramA: submatrix(pool.gramA, pool.n, indices),
    gramB: submatrix(pool.gramB, pool.n, indices),
    toA,
    toB,
    owners: indices.map((i) => pool.owners[i]!),
    indices: indices.map((i) => pool.indices[i]!),
    factors: indices.map((i) => pool.factors[i]!),
  };
}

/** The same deltas from other units: aᵢ becomes gaugeᵢ aᵢ and bᵢ becomes bᵢ / gaugeᵢ. */
export function regauge(pool: UnitPool, gauge: ArrayLike<number>): UnitPool {
  const { n, stacked } = pool;
  return {
    ...pool,
    gramA: pool.gramA.map((x, index) => x * gauge[Math.floor(index / n)]! * gauge[index % n]!),
    gramB: pool.gramB.map((x, index) => x / (gauge[Math.floor(index / n)]! * gauge[index % n]!)),
    toA: pool.toA.map((x, index) => x * gauge[Math.floor(index / stacked)]!),
    toB: pool.toB.map((x, index) => x / gauge[index % n]!),
  };
}
