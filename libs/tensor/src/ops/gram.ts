import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { block, forEachRowWindow, type MatrixView, wholeMatrix, windowOf } from "../gpu/matrix_view.ts";
import { MIRROR_BLOCK, MIRROR_DIAGONAL, MIRROR_DIAGONAL_TILED, MIRROR_TILE } from "../kernels/mirror.ts";
import { defineOperation } from "../operation.ts";
import { aliasedOutput, matrixShape, requireF32, requireShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { PRODUCT_KERNELS, queueProduct } from "./matrix_product.ts";
import type { ProductPrecision } from "./matrix_units.ts";
import { queueCopyRectangle } from "./rectangles.ts";
import { queueTranspose } from "./transpose.ts";

/** Options of {@linkcode gram}. */
export interface GramOptions {
  /** `rows`: X Xᵀ, the inner products of the rows; `columns`: Xᵀ X, those of the columns. */
  readonly of: "rows" | "columns";
  /** `[rows]`: weight of each row in Xᵀ diag(w) X. Only with `of: "columns"`. */
  readonly rowWeights?: Tensor;
  /** Factor of the product. Default 1. */
  readonly alpha?: number;
  /** Factor of what `into` held. Default 0. */
  readonly beta?: number;
  /** Where the result goes, a square matrix that is taken to be symmetric; absent: a new tensor. */
  readonly into?: Tensor;
  /** How exact the product has to be on devices with matrix units, as for `gemm`. Default `f32`. */
  readonly precision?: ProductPrecision;
}

function check(x: Tensor, { of, rowWeights, into }: GramOptions): number {
  const [rows, columns] = matrixShape(x, "gram");
  const size = of === "rows" ? rows : columns;
  requireF32([x, rowWeights, into], "gram");
  if (rowWeights && of === "rows") {
    throw new TensorError(
      "unsupported",
      "gram got row weights for X Xᵀ",
      'use of: "columns", or scaleColumns first',
      "gram",
    );
  }
  if (rowWeights) requireShape(rowWeights, [rows], "rowWeights", "gram");
  if (into) requireShape(into, [size, size], "into", "gram");
  return size;
}

/** Copies what lies below the diagonal of a square view above it. */
export function queueMirror(device: GpuDevice, c: MatrixView): void {
  forEachRowWindow(device, c, "gram", (rows, start) => {
    const end = start + rows.rows;
    const diagonal = windowOf(device, block(rows, [0, rows.rows], [start, end]));
    const [kernel, side] = device.info.class === "software"
      ? [MIRROR_DIAGONAL, MIRROR_BLOCK]
      : [MIRROR_DIAGONAL_TILED, MIRROR_TILE];
    const groups = Math.ceil(rows.rows / side);
    device.dispatch(kernel, [diagonal.window], [rows.rows, c.stride, diagonal.base], [groups, groups]);
    // A dispatch cannot read one part of a buffer and write another, so blocks between windows go through a copy.
    forEachRowWindow(device, block(c, [0, start], [0, c.columns]), "gram", (above, aboveStart) => {
      const copied = device.empty([above.rows, rows.rows]);
      const view = wholeMatrix(copied, "gram");
      queueTranspose(device, block(rows, [0, rows.rows], [aboveStart, aboveStart + above.rows]), view);
      queueCopyRectangle(device, view, block(above, [0, above.rows], [start, end]));
      copied.dispose();
    });
  });
}

/**
 * Gram matrix, `alpha · X Xᵀ + beta · into` or `alpha · Xᵀ diag(w) X + beta · into`: `[rows, columns] → [rows, rows]` or
 * `[columns, columns]`. Exactly symmetric, at half the work of the full product. Long inner axes are summed in runs, which
 * bounds the error, and split over workgroups where the result is small.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`, `aliased_output`, `unsupported`
 */
export const gram: (x: Tensor, options: GramOptions) => Tensor = defineOperation<
  [Tensor, GramOptions],
  Tensor
>({
  name: "gram",
  kernels: [...PRODUCT_KERNELS, MIRROR_DIAGONAL, MIRROR_DIAGONAL_TILED],
  gpu(device, x, options) {
    const size = check(x, options);
    const { of, rowWeights, into, alpha = 1, beta = 0, precision = "f32" } = options;
    if (into && device.sameMemory(into, x)) throw aliasedOutput("gram");
    const c = into ?? device.empty([size, size]);
    const [whole, result] = [wholeMatrix(x, "gram"), wholeMatrix(c, "gram")];
    queueProduct(device, {
      a: whole,
      b: whole,
      c: result,
      transposeA: of === "columns",
      transposeB: of === "rows",
      alpha,
      beta: into ? beta : 0,
      lowerOnly: true,
      weights: rowWeights,
      precision,
    });
    queueMirror(device, result);
    return c;
  },
  cpu: (device, x, options) => computeGram(device, x, options),
});

function computeGram(device: CpuDevice, x: Tensor, options: GramOptions): Tensor {
  const size = check(x, options);
  const { of, rowWeights, into, alpha = 1 } = options;
  const beta = into ? options.beta ?? 0 : 0;
  const [rows, columns] = matrixShape(x, "gram");
  const values = (x as CpuTensor).floats;
  const weights = (rowWeights as CpuTensor | undefined)?.floats;
  const c = (into ?? device.zeros([size, size])) as CpuTensor;
  if (c.floats === values) throw aliasedOutput("gram");
  const sums = of === "rows"
    ? rowProducts(values, rows, columns)
    : columnProducts(values, rows, columns, weights);
  for (let i = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) {
      const value = alpha * sums[i * size + j]! + (beta === 0 ? 0 : beta * c.floats[i * size + j]!);
      c.floats[i * size + j] = value;
      c.floats[j * size + i] = value;
    }
  }
  return c;
}

/** The lower half of X Xᵀ. */
function rowProducts(x: Float64Array, rows: number, columns: number): Float64Array {
  const sums = new Float64Array(rows * rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let p = 0; p < columns; p++) sum += x[i * columns + p]! * x[j * columns + p]!;
      sums[i * rows + j] = sum;
    }
  }
  return sums;
}

/** The lower half of Xᵀ diag(w) X, row by row of X, which is how it lies in memory. */
function columnProducts(
  x: Float64Array,
  rows: number,
  columns: number,
  weights: Float64Array | undefined,
): Float64Array {
  const sums = new Float64Array(columns * columns);
  for (let p = 0; p < rows; p++) {
    const weight = weights?.[p] ?? 1;
    for (let i = 0; i < columns; i++) {
      const left = weight * x[p * columns + i]!;
      for (let j = 0; j <= i; j++) sums[i * columns + j]! += left * x[p * columns + j]!;
    }
  }
  return sums;
}
