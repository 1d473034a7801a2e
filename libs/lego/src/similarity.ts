import type { ResolvedOptions } from "./options.ts";
import type { UnitPool } from "./unit_pool.ts";

/** The n × n kernel matrix that clustering works on; squared distances are Kᵢᵢ + Kⱼⱼ − 2Kᵢⱼ. */
export function similarity(
  pool: UnitPool,
  options: Pick<ResolvedOptions, "features" | "kernel" | "sign">,
): Float64Array<ArrayBuffer> {
  const gramA = options.features === "unit" ? cosines(pool.gramA, pool.n) : pool.gramA;
  const gramB = options.features === "unit" ? cosines(pool.gramB, pool.n) : pool.gramB;
  const multiply = options.kernel === "product" || options.sign === "kernel";
  return Float64Array.from(gramA, (x, index) => multiply ? x * gramB[index]! : x + gramB[index]!);
}

/** A Gram matrix divided by the norms of its vectors, none of which may be zero. */
export function cosines(gram: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const norms = Float64Array.from({ length: n }, (_, i) => Math.sqrt(gram[i * n + i]!));
  return Float64Array.from(gram, (x, index) => x / (norms[Math.floor(index / n)]! * norms[index % n]!));
}
