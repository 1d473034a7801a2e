import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { block, type MatrixView, wholeMatrix } from "../gpu/matrix_view.ts";
import { triangularSolve } from "../linalg/mod.ts";
import { defineOperation } from "../operation.ts";
import type { Tensor } from "../tensor.ts";
import type { TriangularFactor } from "./cholesky.ts";
import { PRODUCT_KERNELS, queueProduct } from "./matrix_product.ts";
import { queueCopyRectangles } from "./rectangles.ts";
import { type BlockedTriangle, inverseOf, type Range } from "./triangular_blocks.ts";

/**
 * L⁻¹ of a factor, `[n, n]`, zero above the diagonal. It costs as much as the factorisation and turns each solve into one product, which
 * pays on a GPU where a few right-hand sides at a time are solved for again and again: solving by blocks then waits for one small
 * product after the other. Blocks of twice the size, from the inverses of the diagonal ones on:
 *
 *     [L₁ 0; L₂₁ L₂]⁻¹ = [L₁⁻¹ 0; −L₂⁻¹ L₂₁ L₁⁻¹  L₂⁻¹]
 */
export const invertTriangular: (factor: TriangularFactor) => Tensor = (factor) =>
  operation(factor.lower, factor.inverses);

const operation = defineOperation<[Tensor, Tensor | undefined], Tensor>({
  name: "invertTriangular",
  kernels: PRODUCT_KERNELS,
  gpu: (device, lower, inverses) => queueInverse(device, lower, inverses!),
  cpu: computeInverse,
});

/**
 * Inverses of diagonal blocks, wherever they lie: row r of the triangle has its diagonal element at r · (stride + 1), in rows that are
 * `stride` elements apart. That holds for a whole matrix, and for blocks of `stride` rows with a row between one and the next.
 */
interface DiagonalBlocks {
  readonly tensor: Tensor;
  readonly stride: number;
}

/** The rectangle of rows and columns [start, end) of one diagonal block. */
function rectangle({ tensor, stride }: DiagonalBlocks, rows: Range, columns: Range): MatrixView {
  return {
    tensor,
    offset: columns[0] * (stride + 1) + (rows[0] - columns[0]) * stride,
    rows: rows[1] - rows[0],
    columns: columns[1] - columns[0],
    stride,
  };
}

/** Puts the inverses of diagonal blocks where those of larger blocks are to grow from them. */
function queueSeeds(device: GpuDevice, n: number, inverses: Tensor, into: DiagonalBlocks): void {
  const [, pitch, size] = inverses.shape as [number, number, number];
  const copy = (start: number, end: number, count: number) => {
    const range = [start, end] as const;
    const apart = { count, from: size * pitch, to: size * (into.stride + 1) };
    queueCopyRectangles(device, inverseOf(inverses, range), rectangle(into, range, range), apart);
  };
  const whole = Math.floor(n / size);
  if (whole > 0) copy(0, size, whole);
  if (whole * size < n) copy(whole * size, n, 1);
}

/** Makes inverses of blocks of twice `half` rows from those of the halves, `count` of them from row `start` on. */
function queueDoubling(
  device: GpuDevice,
  lower: MatrixView,
  inverse: DiagonalBlocks,
  [start, end]: Range,
  half: number,
  count: number,
): void {
  const [first, second] = [[start, start + half], [start + half, end]] as const;
  const shape = [count, end - start - half, half] as const;
  const scratch = (tensor: Tensor): MatrixView => ({
    tensor,
    offset: 0,
    rows: shape[1],
    columns: half,
    stride: half,
  });
  const apart = 2 * half * (inverse.stride + 1);
  // Through matrices of their own, because a dispatch cannot read one part of a buffer and write another.
  using coupled = device.empty(shape);
  using solved = device.empty(shape);
  queueProduct(device, {
    a: block(lower, second, first),
    b: rectangle(inverse, first, first),
    c: scratch(coupled),
    triangular: { b: "lower" },
    batch: { count, a: 2 * half * (lower.stride + 1), b: apart, c: shape[1] * half },
  });
  queueProduct(device, {
    a: rectangle(inverse, second, second),
    b: scratch(coupled),
    c: scratch(solved),
    alpha: -1,
    triangular: { a: "lower" },
    batch: { count, a: apart, b: shape[1] * half, c: shape[1] * half },
  });
  queueCopyRectangles(device, scratch(solved), rectangle(inverse, second, first), {
    count,
    from: shape[1] * half,
    to: apart,
  });
}

/** Lets inverses of diagonal blocks of `size` rows grow to blocks of `until`, a power of two times that. */
function queueGrowth(
  device: GpuDevice,
  lower: MatrixView,
  inverse: DiagonalBlocks,
  size: number,
  until: number,
): void {
  const n = lower.rows;
  for (let half = size; half < Math.min(n, until); half *= 2) {
    const pairs = Math.floor(n / (2 * half));
    if (pairs > 0) queueDoubling(device, lower, inverse, [0, 2 * half], half, pairs);
    const start = pairs * 2 * half;
    if (start + half < n) queueDoubling(device, lower, inverse, [start, n], half, 1);
  }
}

/** Inverses of diagonal blocks of `size` rows, a power of two times those there are. */
export function queueWiderInverses(
  device: GpuDevice,
  { lower, inverses }: BlockedTriangle,
  size: number,
): Tensor {
  const tensor = device.zeros([Math.ceil(lower.rows / size), size + 1, size]);
  const wider = { tensor, stride: size };
  queueSeeds(device, lower.rows, inverses, wider);
  queueGrowth(device, lower, wider, inverses.shape[2]!, size);
  return tensor;
}

function queueInverse(device: GpuDevice, lower: Tensor, inverses: Tensor): Tensor {
  const n = lower.shape[0]!;
  const tensor = device.zeros([n, n]);
  const whole = { tensor, stride: n };
  queueSeeds(device, n, inverses, whole);
  queueGrowth(device, wholeMatrix(lower, "invertTriangular"), whole, inverses.shape[2]!, n);
  return tensor;
}

function computeInverse(device: CpuDevice, lower: Tensor): Tensor {
  const n = lower.shape[0]!;
  const identity = new Float64Array(n * n);
  for (let i = 0; i < n; i++) identity[i * n + i] = 1;
  return device.wrap(triangularSolve((lower as CpuTensor).floats, n, identity, n), [n, n]);
}
