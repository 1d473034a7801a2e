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
  const kernel = new Float64Array(pool.n * pool.n);
  for (let i = 0; i < kernel.length; i++) {
    kernel[i] = multiply ? gramA[i]! * gramB[i]! : gramA[i]! + gramB[i]!;
  }
  return kernel;
}

/** A Gram matrix divided by the norms of its vectors, none of which may be zero. */
export function cosines(gram: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const norm = Math.sqrt(gram[i * n + i]!);
    for (let j = 0; j < n; j++) out[i * n + j] = gram[i * n + j]! / (norm * Math.sqrt(gram[j * n + j]!));
  }
  return out;
}
