import { gemm, type Tensor } from "@lora-loom/tensor";
import { accumulate, multiple, squaredNorm } from "../algebra.ts";
import type { TruncationKind } from "../options.ts";
import { leadingLeftVectors } from "./singular_vectors.ts";

/** A solution W = left · rows, and what measures it. */
export interface Solution {
  /** `[m, in]`. */
  readonly rows: Tensor;
  /** Z with Z Zᵀ = rows · G · rowsᵀ, `[m, in]`. */
  readonly half: Tensor;
  /** Orthonormal columns, `[out, m]`; absent: the identity. */
  readonly left: Tensor | undefined;
}

/** A solution of lower rank, W_r = b·a. */
export interface Truncated {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly rank: number;
  /** tr((W − W_r) G (W − W_r)ᵀ) / tr(W G Wᵀ): the part of the squared output on the calibration text that is lost. */
  readonly loss: number;
  /** The same for plain SVD of W at that rank. */
  readonly plainLoss: number;
}

/**
 * The best approximation of rank `rank` in the norm of the Gram matrix: W_r = U Uᵀ W with U the leading eigenvectors of
 * W G Wᵀ, which are the leading left singular vectors of Z. Plain SVD takes those of W instead.
 */
export async function truncate(
  { rows, half, left }: Solution,
  rank: number,
  kind: TruncationKind,
): Promise<Truncated> {
  using weightedBasis = await leadingLeftVectors(half, rank);
  using plainBasis = await leadingLeftVectors(rows, rank);
  const basis = kind === "plain" ? plainBasis : weightedBasis;
  return {
    a: gemm(basis, rows, { transposeA: true }),
    b: left ? gemm(left, basis) : multiple(basis, 1),
    rank: basis.shape[1]!,
    loss: await lossOf(basis, half),
    plainLoss: await lossOf(plainBasis, half),
  };
}

/** ‖(I − U Uᵀ) Z‖² / ‖Z‖². */
async function lossOf(basis: Tensor, half: Tensor): Promise<number> {
  using inner = gemm(basis, half, { transposeA: true });
  using kept = gemm(basis, inner);
  using rest = multiple(half, 1);
  accumulate(rest, kept, -1);
  const norm = await squaredNorm(half);
  return norm > 0 ? await squaredNorm(rest) / norm : 0;
}
