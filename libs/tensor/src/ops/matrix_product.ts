/** Cuts a matrix product into dispatches: windows of operands that are too large to bind, slices of the inner index, tiles. */
import type { DeviceClass } from "../device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { MAX_WORKGROUPS } from "../gpu/limits.ts";
import { block, fitsBinding, isVec4Aligned, type MatrixView, windowOf } from "../gpu/matrix_view.ts";
import { GEMM_FORMS, type GemmForm, type GemmKernel, gemmParamValues } from "../kernels/gemm_interface.ts";
import { GEMM_REDUCE } from "../kernels/gemm_reduce.ts";
import { gemmLanes, LANES } from "../kernels/gemm_lanes.ts";
import { gemmRegisters } from "../kernels/gemm_registers.ts";
import { gemmTiled } from "../kernels/gemm_tiled.ts";
import type { Tensor } from "../tensor.ts";
import {
  MATRIX_UNIT_KERNELS,
  type ProductPrecision,
  queueMatrixUnitProduct,
  usesMatrixUnits,
} from "./matrix_unit_product.ts";

/** One kernel template in all its forms. */
type Family = ReadonlyMap<string, GemmKernel>;

function family(make: (form: GemmForm) => GemmKernel): Family {
  return new Map(GEMM_FORMS.map((form) => [JSON.stringify(form), make(form)]));
}

const REGISTERS_8X8 = family((form) => gemmRegisters(form, { rows: 8, vectors: 2 }));
const REGISTERS_8X4 = family((form) => gemmRegisters(form, { rows: 8, vectors: 1 }));
const REGISTERS_1X8 = family((form) => gemmRegisters(form, { rows: 1, vectors: 2 }));
const LANES_32X32 = family((form) => gemmLanes(form, { rows: 32, columnsEach: 4 }));
const LANES_16X32 = family((form) => gemmLanes(form, { rows: 16, columnsEach: 4 }));
const LANES_32X8 = family((form) => gemmLanes(form, { rows: 32, columnsEach: 1 }));
const LANES_8X32 = family((form) => gemmLanes(form, { rows: 8, columnsEach: 4 }));
const TILED_128 = family((form) =>
  gemmTiled(form, { rows: 128, columns: 128, depth: 8, rowsEach: 8, columnsEach: 8 })
);
const TILED_64 = family((form) =>
  gemmTiled(form, { rows: 64, columns: 64, depth: 16, rowsEach: 4, columnsEach: 4 })
);
/** The template at its smallest: what the tests run on software drivers, which compile the others slowly. */
const TILED_8X8 = family((form) =>
  gemmTiled(form, { rows: 8, columns: 8, depth: 4, rowsEach: 4, columnsEach: 4 })
);
const TILED_32 = family((form) =>
  gemmTiled(form, { rows: 32, columns: 32, depth: 16, rowsEach: 4, columnsEach: 4 })
);

/** A rule of the table below: the first whose condition holds decides. */
interface Rule {
  readonly family: Family;
  readonly when: (m: number, n: number) => boolean;
}

const HARDWARE: readonly Rule[] = [
  { family: TILED_128, when: (m, n) => m > 512 && n > 512 },
  { family: TILED_64, when: (m, n) => m > 48 && n > 48 },
  { family: TILED_32, when: () => true },
];

/** Which kernel multiplies matrices of m rows and n columns, by class of device. */
const TABLE: Readonly<Record<Exclude<DeviceClass, "cpu">, readonly Rule[]>> = {
  tensor: HARDWARE,
  gpu: HARDWARE,
  software: [
    { family: REGISTERS_1X8, when: (m) => m <= 2 },
    { family: REGISTERS_8X4, when: (_, n) => n <= 32 },
    { family: REGISTERS_8X8, when: () => true },
  ],
};

/** The same for software drivers whose subgroups are as wide as the lane kernels take them. */
const SOFTWARE_WITH_LANES: readonly Rule[] = [
  { family: LANES_8X32, when: (m) => m <= 8 },
  { family: LANES_32X8, when: (_, n) => n <= 16 },
  { family: LANES_32X32, when: (m, n) => m >= 256 && n >= 128 },
  { family: LANES_16X32, when: () => true },
];

/**
 * Workgroups of 256 invocations that keep a device busy; a product with fewer tiles is split along its inner index. Drivers that run on
 * the CPU count workgroups of any size.
 */
const BUSY: Readonly<Record<DeviceClass, number>> = { tensor: 264, gpu: 128, software: 8, cpu: 1 };

/** Shortest slice of the inner index worth a workgroup. */
const SHORTEST_SLICE = 256;

/** Longest run of the inner index that one f32 sum takes; longer ones are added up from such runs, which bounds the error. */
const LONGEST_RUN = 4096;

/** Every kernel of matrix products, for the registry. */
export const PRODUCT_KERNELS: readonly Kernel[] = [
  ...[
    LANES_32X32,
    LANES_16X32,
    LANES_32X8,
    LANES_8X32,
    REGISTERS_8X8,
    REGISTERS_8X4,
    REGISTERS_1X8,
    TILED_128,
    TILED_64,
    TILED_32,
    TILED_8X8,
  ].flatMap((
    kernels,
  ) => [...kernels.values()].map(({ kernel }) => kernel)),
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
  /** How exact the product has to be on devices with matrix units. Default `f32`. */
  readonly precision?: ProductPrecision;
  /** Take this family in place of the table's choice; for tests and benchmarks. */
  readonly family?: string | undefined;
}

/** Queues a matrix product. */
export function queueProduct(device: GpuDevice, product: Product): void {
  const { a, b, c, transposeA = false, transposeB = false, lowerOnly = false } = product;
  const k = transposeA ? a.rows : a.columns;
  const cut = (part: Partial<Product>) => queueProduct(device, { ...product, ...part });
  if (c.rows === 0 || c.columns === 0) return;
  const tooLarge = [a, b, c].filter((view) => !fitsBinding(device, view));
  if (tooLarge.length === 0 && usesMatrixUnits(device, [c.rows, c.columns, k], product.family)) {
    return queueMatrixUnitProduct(device, product, k);
  }
  const { tileRows, tileColumns } = chooseFamily(device, product).values().next().value!;
  const cutsRows = tooLarge.includes(c) || (tooLarge.includes(a) && !transposeA) ||
    c.rows > MAX_WORKGROUPS * tileRows;
  const cutsColumns = (tooLarge.includes(b) && transposeB) || c.columns > MAX_WORKGROUPS * tileColumns;
  const tooLong = k > LONGEST_RUN * sliceCount(device, product, k);
  if (tooLarge.length === 0 && !cutsRows && !cutsColumns && !tooLong) {
    return dispatchProduct(device, product, k);
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

function chooseFamily(device: GpuDevice, { c, family }: Product): Family {
  const named = family === undefined ? undefined : FAMILIES[family];
  if (named) return named;
  const rules = device.info.class === "software" && device.limits.subgroupSize === LANES
    ? SOFTWARE_WITH_LANES
    : TABLE[device.info.class as Exclude<DeviceClass, "cpu">];
  return rules.find((rule) => rule.when(c.rows, c.columns))!.family;
}

/** The kernel families by name, for tests and benchmarks. */
export const FAMILIES: Readonly<Record<string, Family>> = {
  lanes_32x32: LANES_32X32,
  lanes_16x32: LANES_16X32,
  lanes_32x8: LANES_32X8,
  lanes_8x32: LANES_8X32,
  registers_8x8: REGISTERS_8X8,
  registers_8x4: REGISTERS_8X4,
  registers_1x8: REGISTERS_1X8,
  tiled_128: TILED_128,
  tiled_64: TILED_64,
  tiled_32: TILED_32,
  tiled_8x8: TILED_8X8,
};

/** Into how many slices the inner index is split so that the device has enough workgroups. */
function sliceCount(device: GpuDevice, product: Product, k: number): number {
  const { c } = product;
  const { tileRows, tileColumns, kernel } = chooseFamily(device, product).values().next().value!;
  const tiles = Math.ceil(c.rows / tileRows) * Math.ceil(c.columns / tileColumns) /
    (product.lowerOnly ? 2 : 1);
  const perWorkgroup = device.info.class === "software"
    ? 256
    : kernel.requires?.invocationsPerWorkgroup ?? 256;
  const wanted = Math.floor(BUSY[device.info.class] * 256 / perWorkgroup / tiles);
  const fitting = Math.floor(device.limits.maxBindingBytes / (4 * c.rows * c.columns));
  return Math.max(1, Math.min(wanted, fitting, Math.floor(k / SHORTEST_SLICE)));
}

function dispatchProduct(device: GpuDevice, product: Product, k: number): void {
  const { a, b, c, transposeA = false, transposeB = false, alpha = 1, beta = 0, lowerOnly = false, weights } =
    product;
  const [m, n] = [c.rows, c.columns];
  const windows = { a: windowOf(device, a), b: windowOf(device, b), c: windowOf(device, c) };
  const vec4 = [a, b, c].every(isVec4Aligned);
  const form: GemmForm = { transposeA, transposeB, vec4, weighted: weights !== undefined };
  const chosen = chooseFamily(device, product).get(JSON.stringify(form));
  if (!chosen) throw new TensorError("unsupported", "weights need Aᵀ B", "transpose A, not B", "gemm");

  const slices = sliceCount(device, product, k);
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
      sliceStride: partial ? m * n : 0,
      lowerOnly: lowerOnly ? 1 : 0,
      alpha: partial ? 1 : alpha,
      beta: partial ? 0 : beta,
    }),
    [...grid, slices],
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
