import { gemm } from "../ops/gemm.ts";
import type { Device } from "../device.ts";
import { type HostMatrix, products, randomMatrix, transposed, wideMatrix } from "./matrices.ts";

/** A product, and what a variant may be asked besides. */
export interface ProductCase {
  readonly a: HostMatrix;
  readonly b: HostMatrix;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly alpha?: number;
  readonly beta?: number;
  readonly weights?: Float32Array<ArrayBuffer> | undefined;
  readonly kernel?: string | undefined;
}

/** What a product gives, and by definition ought to. */
export interface ProductOutcome {
  readonly actual: ArrayLike<number>;
  readonly expected: Float64Array;
  /** Sums of magnitudes, entry by entry. */
  readonly magnitude: Float64Array;
}

/** Runs gemm on a case and works out what it ought to give. */
export async function runProduct(
  device: Device,
  { a, b, transposeA, transposeB, alpha = 1, beta = 0, weights, kernel }: ProductCase,
): Promise<ProductOutcome> {
  const [storedA, storedB] = [transposeA ? transposed(a) : a, transposeB ? transposed(b) : b];
  using left = device.upload(storedA.data, [storedA.rows, storedA.columns]);
  using right = device.upload(storedB.data, [storedB.rows, storedB.columns]);
  using innerWeights = weights ? device.upload(weights, [weights.length]) : undefined;
  const before = randomMatrix(a.rows, b.columns, 77).data;
  // Poisoned where the result does not depend on it.
  if (beta === 0) before.fill(NaN);
  using into = device.upload(before, [a.rows, b.columns]);
  gemm(left, right, {
    transposeA,
    transposeB,
    alpha,
    beta,
    into,
    ...innerWeights ? { innerWeights } : {},
    ...kernel === undefined ? {} : { kernel },
  });
  const { sum, magnitude } = products(a, b, weights);
  const added = (i: number) => beta === 0 ? 0 : beta * before[i]!;
  return {
    actual: await device.download(into),
    expected: sum.map((value, i) => alpha * value + added(i)),
    magnitude: magnitude.map((value, i) => Math.abs(alpha) * value + Math.abs(added(i))),
  };
}

/** Odd and aligned sizes `[m, n, k]` around the edges of small tiles. */
const SIZES = [[20, 36, 24], [19, 35, 21], [1, 33, 9], [33, 1, 5]] as const;

/** Products that every variant has to pass in one form: odd and aligned sizes, alpha and beta, huge and tiny scales, weights. */
export function productCases(
  transposeA: boolean,
  transposeB: boolean,
  kernel: string,
  sizes: readonly (readonly [number, number, number])[] = SIZES,
): ProductCase[] {
  const form = { transposeA, transposeB, kernel };
  return sizes.flatMap(([m, n, k]) => {
    const [a, b] = [randomMatrix(m, k, 1), randomMatrix(k, n, 2)];
    const weights = Float32Array.from({ length: k }, (_, i) => 0.5 + i % 7);
    return [
      { ...form, a, b },
      { ...form, a, b, alpha: -1.5, beta: 0.25 },
      { ...form, a: wideMatrix(m, k, 3, 4), b: randomMatrix(k, n, 4, 1e-30) },
      { ...form, a: wideMatrix(m, k, 5, 4), b: randomMatrix(k, n, 6, 1e30) },
      ...transposeA && !transposeB ? [{ ...form, a, b, weights }] : [],
    ];
  });
}
