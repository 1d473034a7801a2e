import { foldGrid } from "../gpu/grid.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { windowOf } from "../gpu/matrix_view.ts";
import type { MatrixUnitKernel } from "../kernels/gemm_matrix_units.ts";
import { GEMM_REDUCE } from "../kernels/gemm_reduce.ts";
import { PACKED_K } from "../kernels/pack_halves.ts";
import type { Tensor } from "../tensor.ts";
import type { Product } from "./matrix_product.ts";
import { BUSY, RUN, type Split, UNIT_KERNELS, unitKernelFor } from "./matrix_unit_kernels.ts";
import type { ProductPrecision } from "./matrix_units.ts";
import { largestOf, type Operand, operandsOf, pack, PACK_KERNELS, sameOperand } from "./packed_operand.ts";

/** Every kernel of products on matrix units, for the registry. */
export const MATRIX_UNIT_KERNELS: readonly Kernel[] = [...UNIT_KERNELS, ...PACK_KERNELS];

/** The most bytes that a packed operand may take; longer inner axes are packed and multiplied in turn. */
const PACK_BYTES = 2 ** 28;

/** Which operands of a product have to be split: none for 11 bits, else those that are not stored in 16 bits, which one part holds. */
function splitOf(left: Operand, right: Operand, precision: ProductPrecision): Split {
  const isNarrow = ({ source }: Operand) => source.dtype !== "f32";
  if (precision === "f16" || (isNarrow(left) && isNarrow(right))) return "none";
  return isNarrow(right) ? "left" : "both";
}

/** Queues a product on matrix units, of matrices that each fit one binding. */
export function queueMatrixUnitProduct(device: GpuDevice, product: Product, k: number): void {
  const { precision = "f32", beta = 0 } = product;
  const { left, right } = operandsOf(product);
  const split = splitOf(left, right, precision);
  const same = sameOperand(left, right);
  using largestA = largestOf(device, left, k);
  using largestB = same ? undefined : largestOf(device, right, k);
  const kernel = unitKernelFor(product, split);
  const { shape } = kernel;
  const { partsA, partsB } = shape;
  const bytesPerInner = 2 *
    (Math.max(partsA * left.rows, partsB * right.rows) + partsA * shape.rows + partsB * shape.columns);
  const most = Math.max(
    RUN.f32,
    Math.floor(Math.min(PACK_BYTES, device.limits.maxBindingBytes) / bytesPerInner / RUN.f32) * RUN.f32,
  );
  for (let start = 0; start < k; start += most) {
    const inner = Math.min(most, k - start);
    const chunks = Math.ceil(inner / (PACKED_K * shape.chunks)) * shape.chunks;
    using packedA = pack(device, left, largestA, start, inner, chunks, shape, partsA);
    using packedB = largestB && pack(device, right, largestB, start, inner, chunks, shape, partsB);
    multiply(device, { ...product, beta: start === 0 ? beta : 1 }, kernel, {
      a: packedA,
      b: packedB ?? packedA,
      largestA,
      largestB: largestB ?? largestA,
      chunks,
      inner,
    });
  }
}

/** Slices are multiples of so many chunks, which every shape stages in whole steps: sums are cut alike whichever operands are split. */
const SLICE_STEP = 4;

interface Packed {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly largestA: Tensor;
  readonly largestB: Tensor;
  readonly chunks: number;
  /** Inner length without what fills up the last chunks. */
  readonly inner: number;
}

function multiply(
  device: GpuDevice,
  { c, alpha = 1, beta = 0, lowerOnly = false, precision = "f32" }: Product,
  { kernel, shape }: MatrixUnitKernel,
  { a, b, largestA, largestB, chunks, inner }: Packed,
): void {
  const [m, n] = [c.rows, c.columns];
  const tileRows = Math.ceil(m / shape.rows);
  const tileColumns = Math.ceil(n / shape.columns);
  const run = RUN[precision] / PACKED_K;
  const wanted = Math.floor(BUSY / (tileRows * tileColumns));
  // Slices are no shorter than runs of f32, so that splitting does not change how sums are rounded much.
  const slices = Math.max(1, Math.min(wanted, Math.floor(inner / RUN.f32)));
  const perSlice = Math.ceil(inner / PACKED_K / slices / SLICE_STEP) * SLICE_STEP;
  using partial = slices > 1 ? device.empty([slices, m, n]) : undefined;
  const window = windowOf(device, c);
  device.dispatch(kernel, [a, b, largestA, largestB, partial ?? window.window], [
    m,
    n,
    tileRows,
    tileColumns,
    chunks,
    perSlice,
    partial ? m * n : 0,
    run,
    partial ? n : c.stride,
    partial ? 0 : window.base,
    lowerOnly ? 1 : 0,
    partial ? 1 : alpha,
    partial ? 0 : beta,
  ], [...foldGrid(tileRows * tileColumns), slices]);
  if (!partial) return;
  device.dispatch(
    GEMM_REDUCE,
    [partial, window.window],
    [m, n, Math.ceil(chunks / perSlice), c.stride, window.base, lowerOnly ? 1 : 0, alpha, beta],
    foldGrid(Math.ceil(m * n / 64)),
  );
}
