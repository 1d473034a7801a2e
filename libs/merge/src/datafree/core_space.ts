import { gemm, type Tensor } from "@lora-loom/tensor";
import type { WeightedFactors } from "../methods/method.ts";
import { stackFactors } from "../methods/stack_factors.ts";
import { diagonal, type Matrix, multiply, rowRange, scale, transpose, weightedSum } from "./matrix.ts";
import { orthonormalRowBasis } from "./orthonormal_basis.ts";

/** One adapter in coordinates: ΔW_t = U core V, its weight not included. */
export interface CoreSource {
  /** Position in the recipe. */
  readonly adapter: number;
  readonly weight: number;
  /** Rank of its factors. */
  readonly rank: number;
  /** s_t (Uᵀ B_t)(A_t Vᵀ), `[ρ_B, ρ_A]` */
  readonly core: Matrix;
  /** s_t Uᵀ B_t, `[ρ_B, r_t]` */
  readonly b: Matrix;
  /** A_t Vᵀ, `[r_t, ρ_A]` */
  readonly a: Matrix;
}

/**
 * One module's adapters in orthonormal coordinates of everything that they can reach: with U spanning all columns of the B's
 * and V all rows of the A's, ΔW_t = U M_t V, and any norm, angle or singular value of combinations of the ΔW_t is that of
 * the small matrices M_t, at most Σr × Σr. All decisions are taken on these in float64; only U and V, as large as the
 * stacked factors, stay on the device (Core Space, arXiv 2509.17786, §3).
 */
export class CoreSpace implements Disposable {
  private constructor(
    /** Uᵀ, `[ρ_B, out]`, orthonormal rows. */
    readonly left: Tensor,
    /** V, `[ρ_A, in]`, orthonormal rows. */
    readonly right: Tensor,
    readonly sources: readonly CoreSource[],
  ) {}

  /** @param sources at least one */
  static async open(sources: readonly WeightedFactors[]): Promise<CoreSpace> {
    const { device } = sources[0]!.a;
    const parts = sources.map(({ a, b }) => ({ a, b, factor: 1 }));
    const stacked = stackFactors(device, parts);
    using a = stacked.a;
    using b = stacked.b;
    const right = await orthonormalRowBasis(a);
    using bRows = transposedOnDevice(b);
    const left = await orthonormalRowBasis(bRows);
    const ofA = await coordinates(a, right);
    const ofB = await coordinates(bRows, left);
    let start = 0;
    const described = sources.map((source): CoreSource => {
      const rank = source.a.shape[0]!;
      const ownA = rowRange(ofA, start, start + rank);
      const ownB = scale(transpose(rowRange(ofB, start, start + rank)), source.scale);
      start += rank;
      return {
        adapter: source.adapter,
        weight: source.weight,
        rank,
        a: ownA,
        b: ownB,
        core: multiply(ownB, ownA),
      };
    });
    return new CoreSpace(left, right, described);
  }

  /** U X, `[out, columns]`, for coordinates X, `[ρ_B, columns]`. */
  fromLeft(x: Matrix): Tensor {
    using matrix = this.left.device.upload(x.data, [x.rows, x.columns]);
    return gemm(this.left, matrix, { transposeA: true });
  }

  /** X V, `[rows, in]`, for coordinates X, `[rows, ρ_A]`. */
  fromRight(x: Matrix): Tensor {
    using matrix = this.right.device.upload(x.data, [x.rows, x.columns]);
    return gemm(matrix, this.right);
  }

  [Symbol.dispose](): void {
    this.left.dispose();
    this.right.dispose();
  }
}

/** Σ w_t M_t. */
export function sumOfCores(sources: readonly CoreSource[]): Matrix {
  return weightedSum(sources.map(({ core }) => core), sources.map(({ weight }) => weight));
}

/** Whether an adapter contributes anything: methods that count adapters count only these. */
export function isPresent({ core, weight }: CoreSource): boolean {
  return weight !== 0 && core.data.some((value) => value !== 0);
}

async function coordinates(vectors: Tensor, basis: Tensor): Promise<Matrix> {
  const { device } = vectors;
  using product = gemm(vectors, basis, { transposeB: true });
  const [rows, columns] = product.shape as [number, number];
  return { rows, columns, data: Float64Array.from(await device.download(product)) };
}

function transposedOnDevice(x: Tensor): Tensor {
  const n = x.shape[1]!;
  using identity = x.device.upload(diagonal(new Float64Array(n).fill(1)).data, [n, n]);
  return gemm(identity, x, { transposeB: true });
}
