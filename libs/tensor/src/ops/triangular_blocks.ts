import type { GpuDevice } from "../gpu/gpu_device.ts";
import { block, type MatrixView, wholeMatrix } from "../gpu/matrix_view.ts";
import { SERIAL_BLOCK } from "../kernels/cholesky.ts";
import { WIDE_BLOCK } from "../kernels/cholesky_block.ts";
import type { Tensor } from "../tensor.ts";
import { queueProduct } from "./matrix_product.ts";
import { queueCopyRectangle } from "./rectangles.ts";

/** A lower triangular matrix on a GPU whose diagonal blocks were inverted. */
export interface BlockedTriangle {
  readonly lower: MatrixView;
  /** `[⌈n / block⌉, pitch, block]`: the inverse of a diagonal block in the first rows of each. */
  readonly inverses: Tensor;
}

/**
 * Rows and columns of the diagonal blocks that are factored and inverted at once: wide ones on hardware, unless the rows of the matrix,
 * `[n, n]`, are so long that a block of them cannot be bound.
 */
export function blockSize(device: GpuDevice, n: number): number {
  const fits = 4 * n * WIDE_BLOCK + device.limits.windowAlignmentBytes <= device.limits.maxBindingBytes;
  return device.info.class !== "software" && fits ? WIDE_BLOCK : SERIAL_BLOCK;
}

/** Rows, columns or unknowns [start, end). */
export type Range = readonly [start: number, end: number];

/** Which of the four systems with L is solved: L X = B, Lᵀ X = B, X L = B or X Lᵀ = B. */
export interface TriangularForm {
  readonly transpose: boolean;
  readonly side: "left" | "right";
}

/** The two halves of a range that spans several diagonal blocks; undefined for a single block. */
export function halves([start, end]: Range, block: number): readonly [Range, Range] | undefined {
  const blocks = Math.ceil((end - start) / block);
  if (blocks === 1) return undefined;
  const middle = start + Math.ceil(blocks / 2) * block;
  return [[start, middle], [middle, end]];
}

/** The inverse of the diagonal block that covers `range`. */
export function inverseOf(inverses: Tensor, [start, end]: Range): MatrixView {
  const [, pitch, block] = inverses.shape as [number, number, number];
  return { tensor: inverses, offset: start * pitch, rows: end - start, columns: end - start, stride: block };
}

/** A copy of a view, as a tensor of its own. */
export function copyOf(device: GpuDevice, view: MatrixView): Tensor {
  const result = device.empty([view.rows, view.columns]);
  queueCopyRectangle(device, view, wholeMatrix(result, "copy"));
  return result;
}

/** A system on its way: two matrices, because a dispatch cannot read one part of a buffer and write another. */
export interface Unknowns {
  /** The right-hand side, less what solved unknowns contribute to it; used up. */
  readonly rest: MatrixView;
  /** Receives the solution. */
  readonly solved: MatrixView;
}

/**
 * Solves for the unknowns of `range`: one half, then what it contributes to the other half is subtracted, then that half.
 * Recursion makes nearly all of the work products with long inner axes.
 *
 * @param origin the unknown with which both matrices begin
 */
export function queueTriangularSolve(
  device: GpuDevice,
  triangle: BlockedTriangle,
  unknowns: Unknowns,
  form: TriangularForm,
  range: Range,
  origin = 0,
): void {
  const left = form.side === "left";
  const part = (view: MatrixView, [start, end]: Range) => {
    const place = [start - origin, end - origin] as const;
    return left ? block(view, place, [0, view.columns]) : block(view, [0, view.rows], place);
  };
  const { rest, solved } = unknowns;
  const parts = halves(range, triangle.inverses.shape[2]!);
  if (!parts) {
    const inverse = inverseOf(triangle.inverses, range);
    const [from, c] = [part(rest, range), part(solved, range)];
    const shape = form.transpose ? "upper" : "lower";
    return queueProduct(
      device,
      left
        ? { a: inverse, b: from, c, transposeA: form.transpose, triangular: { a: shape } }
        : { a: from, b: inverse, c, transposeB: form.transpose, triangular: { b: shape } },
    );
  }

  // L X = B and X Lᵀ = B begin with the first unknowns, the other two with the last.
  const [first, second] = left !== form.transpose ? parts : [parts[1], parts[0]];
  queueTriangularSolve(device, triangle, unknowns, form, first, origin);
  // The part of L that couples the halves lies below the diagonal whichever is solved first.
  const coupling = block(triangle.lower, parts[1], parts[0]);
  const known = part(solved, first);
  const subtracted = { c: part(rest, second), alpha: -1, beta: 1 };
  queueProduct(
    device,
    left
      ? { ...subtracted, a: coupling, b: known, transposeA: form.transpose }
      : { ...subtracted, a: known, b: coupling, transposeB: form.transpose },
  );
  queueTriangularSolve(device, triangle, unknowns, form, second, origin);
}
