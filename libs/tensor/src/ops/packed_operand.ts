import type { GpuDevice } from "../gpu/gpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { type MatrixView, windowOf } from "../gpu/matrix_view.ts";
import type { MatrixUnitShape, Parts } from "../kernels/gemm_matrix_units.ts";
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
import type { Tensor } from "../tensor.ts";
import type { Product } from "./matrix_product.ts";

const LARGEST = new Map(
  PACK_SOURCES.filter(isScaled).map((source) => [packSourceName(source), largestOfRows(source)]),
);
const PACK = new Map(PACK_FORMS.map((form) => [packFormName(form), packHalves(form)]));

function packFormName(form: PackForm): string {
  return `${packSourceName(form)}_${form.parts}`;
}

/** Every kernel that packs, for the registry. */
export const PACK_KERNELS: readonly Kernel[] = [...LARGEST.values(), ...PACK.values()];

/** An operand that is to be packed: its rows are those of op(A), or the columns of op(B). */
export interface Operand {
  readonly view: MatrixView;
  readonly source: PackSource;
  readonly rows: number;
  readonly weights: Tensor | undefined;
  readonly weightsStart: number;
}

/** What a product multiplies, as it is to be packed. */
export function operandsOf(
  { a, b, transposeA = false, transposeB = false, weights, weightsStart = 0 }: Product,
) {
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

/** Whether two operands are packed into the same. */
export function sameOperand(x: Operand, y: Operand): boolean {
  return x.view.tensor === y.view.tensor && x.view.offset === y.view.offset && x.rows === y.rows &&
    x.source.alongInner === y.source.alongInner && !x.source.weighted && !y.source.weighted;
}

/** Tiles of 128 rows that cover an operand, whole blocks of the kernel's. */
function packedTiles({ rows }: Operand, shape: Omit<MatrixUnitShape, "vec4">): number {
  const perBlock = Math.max(shape.rows, shape.columns) / PACKED_ROWS;
  return Math.ceil(rows / (PACKED_ROWS * perBlock)) * perBlock;
}

/** The largest magnitude of each row, as bits; zeros where the scale is to be 1. */
export function largestOf(
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

/** Packs a stretch of the inner index, in so many parts. */
export function pack(
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
