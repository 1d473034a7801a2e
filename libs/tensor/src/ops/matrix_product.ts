/** Cuts a matrix product into dispatches: windows of operands that are too large to bind, slices of the inner index, tiles. */
import type { DeviceClass } from "../device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { MAX_WORKGROUPS } from "../gpu/limits.ts";
import {
  batchOf,
  block,
  fitsBinding,
  isVec4Aligned,
  type MatrixView,
  wholeMatrix,
  windowOf,
} from "../gpu/matrix_view.ts";
import { type GemmForm, gemmParamValues, TRIM } from "../kernels/gemm_interface.ts";
import { GEMM_REDUCE } from "../kernels/gemm_reduce.ts";
import type { Tensor } from "../tensor.ts";
import { MATRIX_UNIT_KERNELS, queueMatrixUnitProduct } from "./matrix_unit_product.ts";
import type { ProductPrecision } from "./matrix_units.ts";
import { chooseVariant, type ProductShape, variantOfTable } from "./product_table.ts";
import { type Family, formKey, PRODUCT_VARIANTS, type ProductVariant } from "./product_variants.ts";
import { queueTranspose } from "./transpose.ts";

/**
 * Tiles of 128 × 128 sums that keep a device busy, or as many sums in smaller tiles; a product of fewer is split along its inner index.
 * Drivers that run on the CPU count tiles of any size.
 */
const BUSY: Readonly<Record<DeviceClass, number>> = { tensor: 264, gpu: 128, software: 8, cpu: 1 };
const WHOLE_TILE = 128 ** 2;

/** Shortest slice of the inner index worth a workgroup. */
const SHORTEST_SLICE = 256;

/** Longest run of the inner index that one f32 sum takes; longer ones are added up from such runs, which bounds the error. */
const LONGEST_RUN = 4096;

/** Every kernel of matrix products, for the registry. */
export const PRODUCT_KERNELS: readonly Kernel[] = [
  ...new Set(
    [...PRODUCT_VARIANTS.values()].flatMap(({ family }) =>
      family ? [...family.values()].map(({ kernel }) => kernel) : []
    ),
  ),
  GEMM_REDUCE,
  ...MATRIX_UNIT_KERNELS,
];

/** C = alpha · op(A) op(B) + beta · C on rectangles of tensors. C may share no memory with A or B. */
export interface Product {
  readonly a: MatrixView;
  readonly b: MatrixView;
  readonly c: MatrixView;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly alpha?: number;
  readonly beta?: number;
  /** Leave tiles above the diagonal of C undefined, for symmetric results. */
  readonly lowerOnly?: boolean;
  /** `[k]`: weights of the inner index. Only with Aᵀ B. */
  readonly weights?: Tensor | undefined;
  /** First of the weights that are used. */
  readonly weightsStart?: number;
  /** op(A) or op(B) is triangular, zero elsewhere, and square: kernels may leave out what they know to be zero. */
  readonly triangular?: { readonly a?: Triangle; readonly b?: Triangle } | undefined;
  /** Several products of these shapes at once; the views are those of the first. */
  readonly batch?: Batch | undefined;
  /** How exact the product has to be on devices with matrix units. Default `f32`. */
  readonly precision?: ProductPrecision;
  /** Take this variant in place of the table's choice; for tests, benchmarks and tuning. */
  readonly variant?: string | undefined;
}

/** Where a triangular matrix has elements. */
export type Triangle = "lower" | "upper";

/** Products of one shape, each of whose matrices lies so many elements after that of the product before. */
export interface Batch {
  readonly count: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

/** Some of the products of a batch. */
function partOf(product: Product, batch: Batch, first: number, count: number): Product {
  const moved = (view: MatrixView, apart: number) => ({ ...view, offset: view.offset + first * apart });
  const { a, b, c } = product;
  return {
    ...product,
    a: moved(a, batch.a),
    b: moved(b, batch.b),
    c: moved(c, batch.c),
    batch: count > 1 ? { ...batch, count } : undefined,
  };
}

/** Queues a batch: in one dispatch where the kernels can and everything can be bound, else in halves. */
function queueBatch(device: GpuDevice, product: Product, batch: Batch, variant: ProductVariant): void {
  const { a, b, c, transposeA = false, transposeB = false } = product;
  const { family, copies } = variant;
  const copied = copies.some((operand) => operand === "a" ? !transposeA : transposeB);
  const bound = [
    batchOf(a, batch.count, batch.a),
    batchOf(b, batch.count, batch.b),
    batchOf(c, batch.count, batch.c),
  ];
  const k = transposeA ? a.rows : a.columns;
  if (family && !copied && k <= LONGEST_RUN && bound.every((view) => fitsBinding(device, view))) {
    return dispatchProduct(device, product, family, k);
  }
  const half = Math.ceil(batch.count / 2);
  queueProduct(device, partOf(product, batch, 0, half), variant);
  queueProduct(device, partOf(product, batch, half, batch.count - half), variant);
}

/** Queues a product after copies of those operands that its variant wants transposed. */
function queueTransposed(device: GpuDevice, product: Product, copies: readonly ("a" | "b")[]): void {
  const copy = (view: MatrixView) => {
    const copied = wholeMatrix(device.empty([view.columns, view.rows]), "gemm");
    queueTranspose(device, view, copied);
    return copied;
  };
  const a = copies.includes("a") ? copy(product.a) : undefined;
  const b = !copies.includes("b") ? undefined : a && sameView(product.a, product.b) ? a : copy(product.b);
  queueProduct(device, {
    ...product,
    ...a ? { a, transposeA: true } : {},
    ...b ? { b, transposeB: false } : {},
  });
  a?.tensor.dispose();
  if (b !== a) b?.tensor.dispose();
}

function sameView(x: MatrixView, y: MatrixView): boolean {
  return x.tensor === y.tensor && x.offset === y.offset && x.stride === y.stride && x.rows === y.rows &&
    x.columns === y.columns;
}

/**
 * Queues a matrix product.
 *
 * @param variant as it is chosen for the product's shape; its parts of other shapes choose their own
 */
export function queueProduct(
  device: GpuDevice,
  product: Product,
  variant: ProductVariant = chooseVariant(device, shapeOf(product), product.variant),
): void {
  const { a, b, c, transposeA = false, transposeB = false, lowerOnly = false } = product;
  const k = transposeA ? a.rows : a.columns;
  const cut = (part: Partial<Product>) =>
    queueProduct(device, { ...product, triangular: undefined, ...part });
  if (c.rows === 0 || c.columns === 0) return;
  if (product.batch && product.batch.count > 1) return queueBatch(device, product, product.batch, variant);
  const tooLarge = [a, b, c].filter((view) => !fitsBinding(device, view));
  if (!variant.family && tooLarge.length === 0) return queueMatrixUnitProduct(device, product, k);
  const copies = variant.copies.filter((operand) => operand === "a" ? !transposeA : transposeB);
  if (copies.length > 0 && tooLarge.length === 0) return queueTransposed(device, product, copies);
  const family = variant.family ?? familyOfParts(device, product);
  const { tileRows, tileColumns } = family.values().next().value!;
  const cutsRows = tooLarge.includes(c) || (tooLarge.includes(a) && !transposeA) ||
    c.rows > MAX_WORKGROUPS * tileRows;
  const cutsColumns = (tooLarge.includes(b) && transposeB) || c.columns > MAX_WORKGROUPS * tileColumns;
  const tooLong = k > LONGEST_RUN * sliceCount(device, product, family, k);
  if (tooLarge.length === 0 && !cutsRows && !cutsColumns && !tooLong) {
    return dispatchProduct(device, product, family, k);
  }

  if (cutsRows && c.rows > 1) {
    const half = Math.ceil(c.rows / 2);
    for (const rows of [[0, half], [half, c.rows]] as const) {
      // Of a symmetric result the upper half needs only the columns up to its diagonal.
      const columns = [0, lowerOnly ? Math.min(rows[1], c.columns) : c.columns] as const;
      cut({
        c: block(c, rows, columns),
        a: transposeA ? block(a, [0, k], rows) : block(a, rows, [0, k]),
        b: transposeB ? block(b, columns, [0, k]) : block(b, [0, k], columns),
        lowerOnly: lowerOnly && rows[0] === 0,
      });
    }
  } else if (cutsColumns && c.columns > 1) {
    const half = Math.ceil(c.columns / 8) * 4;
    for (const columns of [[0, half], [half, c.columns]] as const) {
      cut({
        c: block(c, [0, c.rows], columns),
        b: transposeB ? block(b, columns, [0, k]) : block(b, [0, k], columns),
        lowerOnly: false,
      });
    }
  } else if (k > 4) {
    const half = Math.ceil(k / 8) * 4;
    const runs = [[0, half], [half, k]] as const;
    runs.forEach((run, index) =>
      cut({
        a: transposeA ? block(a, run, [0, a.columns]) : block(a, [0, a.rows], run),
        b: transposeB ? block(b, [0, b.rows], run) : block(b, run, [0, b.columns]),
        beta: index === 0 ? product.beta ?? 0 : 1,
        weightsStart: (product.weightsStart ?? 0) + run[0],
      })
    );
  } else {
    throw new TensorError(
      "binding_too_large",
      `a product of shape [${c.rows}, ${c.columns}] has rows longer than the ${device.limits.maxBindingBytes} bytes this adapter binds`,
      "split the matrices, or use `device: cpu`",
      "gemm",
    );
  }
}

function shapeOf({ a, c, transposeA = false, transposeB = false }: Product): ProductShape {
  return {
    rows: c.rows,
    columns: c.columns,
    inner: transposeA ? a.rows : a.columns,
    transposeA,
    transposeB,
    strideA: a.stride,
  };
}

/** The kernels for the parts of a product that is too large for matrix units: those that it would get without them. */
function familyOfParts(device: GpuDevice, product: Product): Family {
  return variantOfTable(device, { ...shapeOf(product), inner: 0 }).family!;
}

/** Into how many slices the inner index is split so that the device has enough workgroups. */
function sliceCount(device: GpuDevice, product: Product, family: Family, k: number): number {
  const { c } = product;
  const { tileRows, tileColumns } = family.values().next().value!;
  const tiles = Math.ceil(c.rows / tileRows) * Math.ceil(c.columns / tileColumns) /
    (product.lowerOnly ? 2 : 1);
  const smaller = device.info.class === "software" ? 1 : WHOLE_TILE / (tileRows * tileColumns);
  const wanted = Math.floor(BUSY[device.info.class] * smaller / tiles);
  const fitting = Math.floor(device.limits.maxBindingBytes / (4 * c.rows * c.columns));
  return Math.max(1, Math.min(wanted, fitting, Math.floor(k / SHORTEST_SLICE)));
}

/** Element (i, k) of a lower A is zero for k > i, element (k, j) of a lower B for k < j. */
function trimsOf({ triangular = {} }: Product): number {
  const { a, b } = triangular;
  return (a === "lower" ? TRIM.untilRow : a === "upper" ? TRIM.fromRow : 0) +
    (b === "lower" ? TRIM.fromColumn : b === "upper" ? TRIM.untilColumn : 0);
}

function dispatchProduct(device: GpuDevice, product: Product, family: Family, k: number): void {
  const { a, b, c, transposeA = false, transposeB = false, alpha = 1, beta = 0, lowerOnly = false, weights } =
    product;
  const [m, n] = [c.rows, c.columns];
  const { batch = { count: 1, a: 0, b: 0, c: 0 } } = product;
  const bind = (view: MatrixView, apart: number) => windowOf(device, batchOf(view, batch.count, apart));
  const windows = { a: bind(a, batch.a), b: bind(b, batch.b), c: bind(c, batch.c) };
  const vec4 = [a, b, c].every(isVec4Aligned) &&
    [batch.a, batch.b, batch.c].every((apart) => apart % 4 === 0);
  const form: GemmForm = { transposeA, transposeB, vec4, weighted: weights !== undefined };
  const chosen = family.get(formKey(form));
  if (!chosen) throw new TensorError("unsupported", "weights need Aᵀ B", "transpose A, not B", "gemm");

  const slices = batch.count > 1 ? 1 : sliceCount(device, product, family, k);
  const kPerSlice = Math.ceil(k / slices / 16) * 16;
  const partial = slices > 1 ? device.empty([slices, m, n]) : undefined;
  const grid = [Math.ceil(n / chosen.tileColumns), Math.ceil(m / chosen.tileRows)] as const;
  device.dispatch(
    chosen.kernel,
    [windows.a.window, windows.b.window, partial ?? windows.c.window, ...weights ? [weights] : []],
    gemmParamValues({
      m,
      n,
      k,
      strideA: a.stride,
      strideB: b.stride,
      strideC: partial ? n : c.stride,
      baseA: windows.a.base,
      baseB: windows.b.base,
      baseC: partial ? 0 : windows.c.base,
      baseWeights: product.weightsStart ?? 0,
      kPerSlice,
      slices,
      batchA: batch.a,
      batchB: batch.b,
      batchC: batch.c,
      sliceStride: partial ? m * n : 0,
      lowerOnly: lowerOnly ? 1 : 0,
      trims: trimsOf(product),
      alpha: partial ? 1 : alpha,
      beta: partial ? 0 : beta,
    }),
    [...grid, slices * batch.count],
  );
  if (!partial) return;
  device.dispatch(
    GEMM_REDUCE,
    [partial, windows.c.window],
    [m, n, slices, c.stride, windows.c.base, lowerOnly ? 1 : 0, alpha, beta],
    foldGrid(Math.ceil(m * n / 64)),
  );
  partial.dispose();
}
