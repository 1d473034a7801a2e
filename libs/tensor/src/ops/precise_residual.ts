import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import { forEachRowWindow, wholeMatrix, windowOf } from "../gpu/matrix_view.ts";
import { CHOLESKY_ROW_BOUNDS } from "../kernels/cholesky_panel.ts";
import { type ExactKernel, exactProduct, LONGEST_EXACT_SUM, type Slicing } from "../kernels/exact_product.ts";
import { EXACT_RESIDUAL } from "../kernels/exact_residual.ts";
import { SLICE_ROWS } from "../kernels/exact_slices.ts";
import { defineOperation } from "../operation.ts";
import type { Tensor } from "../tensor.ts";
import { queueRowBounds } from "./row_bounds.ts";

const NAME = "preciseResidual";

/** Tiles for hardware, for hardware with little workgroup memory, and for drivers that run on the CPU. */
const TILES = {
  wide: { rowsEach: 4, columnsEach: 4, lanesY: 8, lanesX: 32, depth: 16 },
  narrow: { rowsEach: 4, columnsEach: 4, lanesY: 8, lanesX: 16, depth: 8 },
  software: { rowsEach: 2, columnsEach: 2, lanesY: 4, lanesX: 8, depth: 16 },
};

function kernelsOf(slicing: Slicing): Readonly<Record<keyof typeof TILES, ExactKernel>> {
  const { wide, narrow, software } = TILES;
  return {
    wide: exactProduct(slicing, wide),
    narrow: exactProduct(slicing, narrow),
    software: exactProduct(slicing, software),
  };
}

const KERNELS: Readonly<Record<Slicing, ReturnType<typeof kernelsOf>>> = {
  fine: kernelsOf("fine"),
  coarse: kernelsOf("coarse"),
};

/** The tiles for a device. */
function kindFor({ info, limits }: GpuDevice): keyof typeof TILES {
  if (info.class === "software") return "software";
  const { workgroupStorageBytes = 0 } = KERNELS.fine.wide.kernel.requires ?? {};
  return workgroupStorageBytes <= limits.workgroupStorageBytes ? "wide" : "narrow";
}

/** Workgroups that keep a device busy, and the shortest part of the inner index worth one. */
const BUSY = { wide: 1024, narrow: 1024, software: 8 };
const SHORTEST_SLICE = 256;

/** The most bytes of sums at a time; more rows are computed in turn. */
const MOST_BYTES = 2 ** 27;

/** A symmetric positive semidefinite matrix and an addition to its diagonal that may be too small for the rounding of the matrix. */
export interface ShiftedMatrix {
  /** M, `[n, n]`. */
  readonly matrix: Tensor;
  /** d, `[n]`. */
  readonly diagonal: Tensor;
}

/** Options of {@linkcode preciseResidual}. */
export interface ResidualOptions {
  /**
   * `fine`: about 46 bits of the sums. `coarse`: about 33, at less than half of the cost: enough for the first step of a refinement, whose solution is
   * no better than f32. Default `fine`.
   */
  readonly slicing?: Slicing;
}

/**
 * target − (high + low)·(M + diag(d)), `[m, n]`, for a symmetric positive semidefinite M: in about twice the bits of f32, relative to the largest
 * entries of each row of high + low and to √(Mₖₖ Mⱼⱼ), so that it is accurate although nearly everything cancels. `high + low` is a matrix in
 * twice the usual precision.
 */
export function preciseResidual(
  target: Tensor,
  high: Tensor,
  low: Tensor,
  { matrix, diagonal }: ShiftedMatrix,
  options: ResidualOptions = {},
): Tensor {
  return operation(target, high, low, matrix, diagonal, options);
}

const operation = defineOperation<[Tensor, Tensor, Tensor, Tensor, Tensor, ResidualOptions], Tensor>({
  name: NAME,
  kernels: [
    ...Object.values(KERNELS).flatMap((kernels) => Object.values(kernels).map(({ kernel }) => kernel)),
    SLICE_ROWS,
    EXACT_RESIDUAL,
    CHOLESKY_ROW_BOUNDS,
  ],
  gpu: queueResidual,
  cpu: computeResidual,
});

/** A run of rows of the matrix that fits a binding, and how it is cut along the inner index. */
interface Run {
  readonly window: ReturnType<typeof windowOf>;
  readonly firstK: number;
  readonly inner: number;
  readonly slices: number;
  readonly firstSlice: number;
}

function queueResidual(
  device: GpuDevice,
  target: Tensor,
  high: Tensor,
  low: Tensor,
  matrix: Tensor,
  diagonal: Tensor,
  { slicing = "fine" }: ResidualOptions,
): Tensor {
  const [m, n] = target.shape as [number, number];
  const result = device.empty([m, n]);
  if (m === 0 || n === 0) return result;
  const kind = kindFor(device);
  const { kernel, tileRows, tileColumns } = KERNELS[slicing][kind];
  const tiles = Math.ceil(n / tileColumns) * Math.ceil(m / tileRows);
  using bounds = device.empty([n], "u32");
  const runs = queueBounds(device, matrix, bounds, Math.ceil(BUSY[kind] / tiles));
  const slices = runs.reduce((sum, run) => sum + run.slices, 0);
  const fitting = Math.min(MOST_BYTES, device.limits.maxBindingBytes) / (16 * n * slices);
  const rows = Math.min(
    m,
    Math.max(1, Math.floor(fitting >= tileRows ? fitting - fitting % tileRows : fitting)),
  );
  using sliced = device.empty([rows, n, 4]);
  using scales = device.empty([rows]);
  using sums = device.empty([slices, rows, n, 4], "u32");
  for (let firstRow = 0; firstRow < m; firstRow += rows) {
    const count = Math.min(rows, m - firstRow);
    device.dispatch(SLICE_ROWS, [high, low, bounds, sliced, scales], [count, n, firstRow], [count]);
    for (const { window: { window, base }, firstK, inner, slices, firstSlice } of runs) {
      const perSlice = Math.ceil(inner / slices);
      device.dispatch(
        kernel,
        [sliced, window, bounds, sums],
        [count, n, inner, base, firstK, perSlice, firstSlice],
        [Math.ceil(n / tileColumns), Math.ceil(count / tileRows), slices],
      );
    }
    device.dispatch(
      EXACT_RESIDUAL,
      [target, high, low, diagonal, sums, scales, bounds, result],
      [count, n, slices, firstRow, 0],
      foldGrid(Math.ceil(count * n / 64)),
    );
  }
  return result;
}

/** Finds the bounds √Mᵢᵢ of all rows, and cuts the matrix. */
function queueBounds(device: GpuDevice, matrix: Tensor, bounds: Tensor, wanted: number): Run[] {
  const runs: Run[] = [];
  let firstSlice = 0;
  queueRowBounds(device, wholeMatrix(matrix, NAME), bounds, NAME);
  forEachRowWindow(device, wholeMatrix(matrix, NAME), NAME, (view, firstK) => {
    const window = windowOf(device, view);
    const inner = view.rows;
    const worthwhile = Math.min(wanted, Math.floor(inner / SHORTEST_SLICE));
    const slices = Math.max(1, worthwhile, Math.ceil(inner / LONGEST_EXACT_SUM));
    runs.push({ window, firstK, inner, slices, firstSlice });
    firstSlice += slices;
  });
  return runs;
}

function computeResidual(
  device: CpuDevice,
  target: Tensor,
  high: Tensor,
  low: Tensor,
  matrix: Tensor,
  diagonal: Tensor,
): Tensor {
  const [m, n] = target.shape as [number, number];
  const [upper, lower, g, d] = [high, low, matrix, diagonal].map((x) => (x as CpuTensor).floats);
  const result = (target as CpuTensor).floats.slice();
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < n; k++) {
      const x = upper![i * n + k]! + lower![i * n + k]!;
      for (let j = 0; j < n; j++) result[i * n + j]! -= x * g![k * n + j]!;
      result[i * n + k]! -= x * d![k]!;
    }
  }
  return device.wrap(result, [m, n]);
}
