import type { Device } from "../device.ts";
import { foldGrid } from "../gpu/grid.ts";
import type { GpuDevice, TensorWindow } from "../gpu/gpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { block, fitsBinding, isVec4Aligned, type MatrixView, windowOf } from "../gpu/matrix_view.ts";
import {
  gemmMatrixUnits,
  type MatrixUnitKernel,
  type MatrixUnitShape,
  type Parts,
  SUBGROUP,
} from "../kernels/gemm_matrix_units.ts";
import { GEMM_REDUCE } from "../kernels/gemm_reduce.ts";
import {
  GRID_ROWS,
  isScaled,
  LARGEST_LANES,
  LARGEST_RUN,
  largestOfRows,
  PACK_FORMS,
  PACK_SOURCES,
  PACKED_K,
  PACKED_ROWS,
  type PackForm,
  packHalves,
  type PackSource,
  packSourceName,
  VECTOR_LENGTH,
} from "../kernels/pack_halves.ts";
import { elementCount, type Tensor } from "../tensor.ts";
import type { Product } from "./matrix_product.ts";

/** How exact a product on matrix units is: `f32` as exact as plain f32, `f16` with operands rounded to 11 bits. */
export type ProductPrecision = "f32" | "f16";

/** The block of C of a workgroup: `wide` where there are enough of them to keep a large GPU busy, else `square`. */
type BlockSize = "wide" | "square";

/** Which operands are split in two parts, those that 11 bits do not hold. */
type Split = "both" | "left" | "none";

const SUBGROUPS = { subgroupRows: 2, subgroupColumns: 4 };
const WIDE = { rows: 128, columns: 256, ...SUBGROUPS };
const SQUARE = { rows: 128, columns: 128, ...SUBGROUPS };
const SHAPES: Readonly<Record<Split, Readonly<Record<BlockSize, Omit<MatrixUnitShape, "vec4">>>>> = {
  both: {
    wide: { ...WIDE, chunks: 1, partsA: 2, partsB: 2 },
    square: { ...SQUARE, chunks: 2, partsA: 2, partsB: 2 },
  },
  left: {
    wide: { ...WIDE, chunks: 2, partsA: 2, partsB: 1 },
    square: { ...SQUARE, chunks: 2, partsA: 2, partsB: 1 },
  },
  none: {
    wide: { ...WIDE, chunks: 2, partsA: 1, partsB: 1 },
    square: { ...SQUARE, chunks: 4, partsA: 1, partsB: 1 },
  },
};

interface Variants {
  readonly vec4: MatrixUnitKernel;
  readonly scalar: MatrixUnitKernel;
}

function variants(shape: Omit<MatrixUnitShape, "vec4">): Variants {
  return {
    vec4: gemmMatrixUnits({ ...shape, vec4: true }),
    scalar: gemmMatrixUnits({ ...shape, vec4: false }),
  };
}

const kernelsOf = (split: Split): Readonly<Record<BlockSize, Variants>> => ({
  wide: variants(SHAPES[split].wide),
  square: variants(SHAPES[split].square),
});
const KERNELS: Readonly<Record<Split, Readonly<Record<BlockSize, Variants>>>> = {
  both: kernelsOf("both"),
  left: kernelsOf("left"),
  none: kernelsOf("none"),
};

const LARGEST = new Map(
  PACK_SOURCES.filter(isScaled).map((source) => [packSourceName(source), largestOfRows(source)]),
);
const PACK = new Map(PACK_FORMS.map((form) => [packFormName(form), packHalves(form)]));

function packFormName(form: PackForm): string {
  return `${packSourceName(form)}_${form.parts}`;
}

/** Those that take drivers longest to compile, in the form that aligned matrices take. */
export const LONG_MATRIX_UNIT_KERNELS: readonly Kernel[] = Object.values(KERNELS).flatMap((sizes) =>
  Object.values(sizes).map(({ vec4 }) => vec4.kernel)
);

/** Every kernel of products on matrix units, for the registry. */
export const MATRIX_UNIT_KERNELS: readonly Kernel[] = [
  ...Object.values(KERNELS).flatMap((sizes) =>
    Object.values(sizes).flatMap(({ vec4, scalar }) => [vec4.kernel, scalar.kernel])
  ),
  ...LARGEST.values(),
  ...PACK.values(),
];

/**
 * Inner length that the matrix units sum before the sum is added to C. They round towards zero, three times for every 16 of it, so
 * the error grows with this length; at 512 it is that of sums in plain f32.
 */
const RUN: Readonly<Record<ProductPrecision, number>> = { f32: 512, f16: 2 ** 16 };

/** Shorter inner lengths, fewer rows or columns, and products of less work than this are left to other kernels: packing would cost more than it saves. */
export const LEAST_ON_MATRIX_UNITS = { inner: 128, rows: 64, columns: 64, work: 2 ** 31 };

/** Workgroups that keep the largest GPUs with such units busy. */
const BUSY = 132;

/** Time of a wide block, with twice the work of a square one, in units of that one's, as measured. */
const WIDE_BLOCK_COST = 1.8;

/** The most bytes that a packed operand may take; longer inner axes are packed and multiplied in turn. */
const PACK_BYTES = 2 ** 28;

/** Name of these kernels among the families of products. */
export const MATRIX_UNITS = "matrix_units";

/** Whether a device has the matrix units that these kernels use. */
export function offersMatrixUnits(device: GpuDevice): boolean {
  return device.info.class === "tensor" && device.features.has("chromium-experimental-subgroup-matrix") &&
    device.limits.subgroupSize === SUBGROUP;
}

/** Whether large products read operands of 16 bits as they are stored, and all the faster; elsewhere each product widens them first. */
export function readsHalves(device: Device): boolean {
  return device.info.class === "tensor" && offersMatrixUnits(device as GpuDevice);
}

/** An operand that is to be packed: its rows are those of op(A), or the columns of op(B). */
interface Operand {
  readonly view: MatrixView;
  readonly source: PackSource;
  readonly rows: number;
  readonly weights: Tensor | undefined;
  readonly weightsStart: number;
}

function operandsOf({ a, b, transposeA = false, transposeB = false, weights, weightsStart = 0 }: Product) {
  const operand = (view: MatrixView, alongInner: boolean, weighted: Tensor | undefined): Operand => {
    const dtype = view.tensor.dtype as PackSource["dtype"];
    const startsVectors = view.offset % VECTOR_LENGTH[dtype] === 0 &&
      view.stride % VECTOR_LENGTH[dtype] === 0;
    return {
      view,
      source: { dtype, alongInner, weighted: weighted !== undefined, vectors: alongInner && startsVectors },
      rows: alongInner ? view.rows : view.columns,
      weights: weighted,
      weightsStart,
    };
  };
  return { left: operand(a, !transposeA, undefined), right: operand(b, transposeB, weights) };
}

function sameOperand(x: Operand, y: Operand): boolean {
  return x.view.tensor === y.view.tensor && x.view.offset === y.view.offset && x.rows === y.rows &&
    x.source.alongInner === y.source.alongInner && !x.source.weighted && !y.source.weighted;
}

/** Which operands of a product have to be split: none for 11 bits, else those that are not stored in 16 bits, which one part holds. */
function splitOf(left: Operand, right: Operand, precision: ProductPrecision): Split {
  const isNarrow = ({ source }: Operand) => source.dtype !== "f32";
  if (precision === "f16" || (isNarrow(left) && isNarrow(right))) return "none";
  return isNarrow(right) ? "left" : "both";
}

/** Queues a product on matrix units, of matrices that each fit one binding. */
export function queueMatrixUnitProduct(device: GpuDevice, product: Product, k: number): void {
  const { c, precision = "f32", beta = 0 } = product;
  const { left, right } = operandsOf(product);
  const split = splitOf(left, right, precision);
  const same = sameOperand(left, right);
  using largestA = largestOf(device, left, k);
  using largestB = same ? undefined : largestOf(device, right, k);
  const { vec4, scalar } = KERNELS[split][cheaperBlocks(product, split)];
  const { shape } = vec4;
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
    multiply(device, { ...product, beta: start === 0 ? beta : 1 }, isVec4Aligned(c) ? vec4 : scalar, {
      a: packedA,
      b: packedB ?? packedA,
      largestA,
      largestB: largestB ?? largestA,
      chunks,
      inner,
    });
  }
}

/** Workgroups that have something to do. */
function countBlocks(
  { c, lowerOnly = false }: Pick<Product, "c" | "lowerOnly">,
  { rows, columns }: Omit<MatrixUnitShape, "vec4">,
): number {
  const [tileRows, tileColumns] = [Math.ceil(c.rows / rows), Math.ceil(c.columns / columns)];
  if (!lowerOnly) return tileRows * tileColumns;
  return Array.from(
    { length: tileRows },
    (_, i) => Math.min(tileColumns, Math.ceil((i + 1) * rows / columns)),
  )
    .reduce((sum, count) => sum + count, 0);
}

/** Which blocks take fewer rounds of all workgroups that run at once, weighted with what a round costs. */
function cheaperBlocks(product: Pick<Product, "c" | "lowerOnly">, split: Split): BlockSize {
  const shapes = SHAPES[split];
  const cost = (size: BlockSize, perBlock: number) =>
    Math.ceil(countBlocks(product, shapes[size]) / BUSY) * perBlock;
  return cost("wide", WIDE_BLOCK_COST) < cost("square", 1) ? "wide" : "square";
}

/** Tiles of 128 rows that cover an operand, whole blocks of the kernel's. */
function packedTiles({ rows }: Operand, shape: Omit<MatrixUnitShape, "vec4">): number {
  const perBlock = Math.max(shape.rows, shape.columns) / PACKED_ROWS;
  return Math.ceil(rows / (PACKED_ROWS * perBlock)) * perBlock;
}

/** The largest magnitude of each row, as bits; zeros where the scale is to be 1. */
function largestOf(
  device: GpuDevice,
  { view, source, rows, weights, weightsStart }: Operand,
  k: number,
): Tensor {
  // Packing fills it.
  if (!isScaled(source)) return device.empty([rows], "u32");
  const largest = source.alongInner ? device.empty([rows], "u32") : device.zeros([rows], "u32");
  const { window, base } = windowOf(device, view);
  const grid = source.alongInner
    ? [Math.min(rows, GRID_ROWS), Math.ceil(rows / GRID_ROWS)] as const
    : [Math.ceil(rows / LARGEST_LANES), Math.ceil(k / LARGEST_RUN)] as const;
  device.dispatch(
    LARGEST.get(packSourceName(source))!,
    [window, ...weights ? [weights] : [], largest],
    [rows, k, view.stride, base, 0, weightsStart],
    grid,
  );
  return largest;
}

function pack(
  device: GpuDevice,
  operand: Operand,
  largest: Tensor,
  start: number,
  inner: number,
  chunks: number,
  shape: MatrixUnitShape,
  parts: Parts,
): Tensor {
  const { view, source, rows, weights, weightsStart } = operand;
  const { window, base } = windowOf(device, view);
  const tiles = packedTiles(operand, shape);
  const packed = device.empty([tiles * chunks * parts * PACKED_ROWS * PACKED_K / 2], "u32");
  device.dispatch(
    PACK.get(packFormName({ ...source, parts }))!,
    [window, ...weights ? [weights] : [], largest, packed],
    [
      rows,
      inner,
      view.stride,
      base + start * (source.alongInner ? 1 : view.stride),
      chunks,
      weightsStart + start,
    ],
    [chunks, tiles],
  );
  return packed;
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

/** A matrix that is packed in two parts panel by panel as it comes into being, with common scales for each of its rows. */
export interface PackedMatrix extends Disposable {
  /** `[tiles of 128 rows, chunks of 16 columns, …]`, as `packHalves` leaves them. */
  readonly packed: Tensor;
  /** What rows are scaled by, as bits of magnitudes. */
  readonly largest: Tensor;
  readonly chunks: number;
}

/** Memory for a packed matrix of so many rows and columns, both undefined. */
export function emptyPacked(device: GpuDevice, rows: number, columns: number): PackedMatrix {
  // The widest blocks of the kernels span two tiles.
  const tiles = 2 * Math.ceil(rows / (2 * PACKED_ROWS));
  const chunks = Math.ceil(columns / PACKED_K);
  const packed = device.empty([tiles * chunks, PACKED_CHUNK], "u32");
  const largest = device.empty([rows], "u32");
  return { packed, largest, chunks, [Symbol.dispose]: () => [packed, largest].forEach((x) => x.dispose()) };
}

/** u32s of a chunk of a packed tile, both parts. */
const PACKED_CHUNK = PACKED_ROWS * PACKED_K;

/** C −= X Yᵀ for rows X and Y of one packed matrix. */
export interface PackedUpdate {
  readonly c: MatrixView;
  readonly matrix: PackedMatrix;
  /** First rows of X and of Y, multiples of 256. */
  readonly rowStart: number;
  readonly columnStart: number;
  /** Columns of the packed matrix that count, multiples of 32. */
  readonly inner: readonly [start: number, end: number];
  /** Leave tiles above the diagonal of C as they are. */
  readonly lowerOnly: boolean;
}

/** Queues an update on matrix units by what is packed already. */
export function queuePackedUpdate(device: GpuDevice, update: PackedUpdate): void {
  const { c, matrix, rowStart, columnStart, inner, lowerOnly } = update;
  if (!fitsBinding(device, c) && c.rows > PACKED_ROWS) {
    const half = Math.ceil(c.rows / (2 * PACKED_ROWS)) * PACKED_ROWS;
    const columns = lowerOnly ? Math.min(half, c.columns) : c.columns;
    queuePackedUpdate(device, { ...update, c: block(c, [0, half], [0, columns]) });
    const lower = block(c, [half, c.rows], [0, c.columns]);
    queuePackedUpdate(device, { ...update, c: lower, rowStart: rowStart + half, lowerOnly: false });
    return;
  }
  const { kernel, shape } = KERNELS.both[cheaperBlocks(update, "both")][isVec4Aligned(c) ? "vec4" : "scalar"];
  const tileRows = Math.ceil(c.rows / shape.rows);
  const tileColumns = Math.ceil(c.columns / shape.columns);
  const { window, base } = windowOf(device, c);
  const [left, right] = [rowStart, columnStart].map((row) => packedFrom(matrix, row, inner[0]));
  device.dispatch(kernel, [left!.packed, right!.packed, left!.largest, right!.largest, window], [
    c.rows,
    c.columns,
    tileRows,
    tileColumns,
    matrix.chunks,
    (inner[1] - inner[0]) / PACKED_K,
    0,
    RUN.f32 / PACKED_K,
    c.stride,
    base,
    lowerOnly ? 1 : 0,
    -1,
    1,
  ], foldGrid(tileRows * tileColumns));
}

/** What to bind so that the kernels find row `row` first, and column `column` of it. */
function packedFrom({ packed, largest, chunks }: PackedMatrix, row: number, column: number) {
  const start = (row / PACKED_ROWS * chunks + column / PACKED_K) * PACKED_CHUNK;
  const window = (tensor: Tensor, from: number): TensorWindow => ({
    tensor,
    start: from,
    end: elementCount(tensor.shape),
  });
  return { packed: window(packed, start), largest: window(largest, row) };
}
