import type { CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import { forEachRowWindow, wholeMatrix, windowOf } from "../gpu/matrix_view.ts";
import {
  COLUMN_LARGEST,
  COLUMN_LARGEST_OF_SLICES,
  COLUMN_ROOT_OF_SLICES,
  COLUMN_SQUARES,
} from "../kernels/column_norms.ts";
import { REDUCE_WORKGROUP } from "../kernels/reduce.ts";
import { rowNormKernel, ROWS_PER_WORKGROUP } from "../kernels/row_norms.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape, requireF32 } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";

/** `l2`: root of the sum of squares; `inf`: largest magnitude. */
export type Norm = "l2" | "inf";

const ROW_KERNELS = {
  workgroup: { l2: rowNormKernel("l2", "workgroup"), inf: rowNormKernel("inf", "workgroup") },
  invocation: { l2: rowNormKernel("l2", "invocation"), inf: rowNormKernel("inf", "invocation") },
};

/** Scaled like the kernels, so that squares neither overflow nor vanish. */
function normOf(values: Float64Array, start: number, count: number, step: number, norm: Norm): number {
  let largest = 0;
  for (let i = 0; i < count; i++) {
    const magnitude = Math.abs(values[start + i * step]!);
    if (!(magnitude <= largest)) largest = magnitude;
    if (Number.isNaN(largest)) return NaN;
  }
  if (norm === "inf" || largest === 0 || largest === Infinity) return largest;
  let sum = 0;
  for (let i = 0; i < count; i++) sum += (values[start + i * step]! / largest) ** 2;
  return largest * Math.sqrt(sum);
}

/**
 * The norm of each row, `[rows, columns] → [rows]`. Entries of any scale are safe: nothing is squared unscaled.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const rowNorms: (x: Tensor, norm?: Norm) => Tensor = defineOperation<[Tensor, Norm?], Tensor>({
  name: "rowNorms",
  kernels: Object.values(ROW_KERNELS).flatMap((kernels) => Object.values(kernels)),
  gpu(device, x, norm = "l2") {
    const [rows, columns] = matrixShape(x, "rowNorms");
    requireF32([x], "rowNorms");
    if (columns === 0) return device.zeros([rows]);
    const out = device.empty([rows]);
    const grain = device.info.class === "software" ? "invocation" : "workgroup";
    forEachRowWindow(device, wholeMatrix(x, "rowNorms"), "rowNorms", (view, rowStart) => {
      const { window, base } = windowOf(device, view);
      device.dispatch(
        ROW_KERNELS[grain][norm],
        [window, out],
        [view.rows, columns, base, rowStart],
        foldGrid(Math.ceil(view.rows / ROWS_PER_WORKGROUP[grain])),
      );
    });
    return out;
  },
  cpu(device, x, norm = "l2") {
    const [rows, columns] = matrixShape(x, "rowNorms");
    requireF32([x], "rowNorms");
    const values = (x as CpuTensor).floats;
    return device.wrap(
      Float64Array.from({ length: rows }, (_, i) => normOf(values, i * columns, columns, 1, norm)),
      [rows],
    );
  },
});

/** Rows that one invocation walks down at most, and slices of rows at most. */
const ROWS_PER_SLICE = 32;
const MOST_SLICES = 256;

/** Runs a kernel over slices of rows, window by window. Returns the partial results, `[slices, columns]`. */
function queueColumnSlices(
  device: GpuDevice,
  kernel: typeof COLUMN_LARGEST,
  x: Tensor,
  extra: readonly Tensor[],
): { partial: Tensor; slices: number } {
  const [rows, columns] = matrixShape(x, "columnNorms");
  const rowsPerSlice = Math.max(ROWS_PER_SLICE, Math.ceil(rows / MOST_SLICES));
  const windows: { slices: number; first: number; queue: (partial: Tensor) => void }[] = [];
  let total = 0;
  forEachRowWindow(device, wholeMatrix(x, "columnNorms"), "columnNorms", (view) => {
    const { window, base } = windowOf(device, view);
    const slices = Math.ceil(view.rows / rowsPerSlice);
    const first = total;
    total += slices;
    windows.push({
      slices,
      first,
      queue: (partial) =>
        device.dispatch(
          kernel,
          [window, ...extra, partial],
          [view.rows, columns, base, rowsPerSlice, first],
          [Math.ceil(columns / REDUCE_WORKGROUP), slices],
        ),
    });
  });
  const partial = device.empty([total, columns], kernel === COLUMN_LARGEST ? "u32" : "f32");
  for (const { queue } of windows) queue(partial);
  return { partial, slices: total };
}

/**
 * The norm of each column, `[rows, columns] → [columns]`. Entries of any scale are safe: nothing is squared unscaled.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const columnNorms: (x: Tensor, norm?: Norm) => Tensor = defineOperation<[Tensor, Norm?], Tensor>({
  name: "columnNorms",
  kernels: [COLUMN_LARGEST, COLUMN_LARGEST_OF_SLICES, COLUMN_SQUARES, COLUMN_ROOT_OF_SLICES],
  gpu(device, x, norm = "l2") {
    const [rows, columns] = matrixShape(x, "columnNorms");
    requireF32([x], "columnNorms");
    if (rows === 0 || columns === 0) return device.zeros([columns]);
    const grid = [Math.ceil(columns / REDUCE_WORKGROUP)] as const;
    const first = queueColumnSlices(device, COLUMN_LARGEST, x, []);
    const largest = device.empty([columns]);
    device.dispatch(COLUMN_LARGEST_OF_SLICES, [first.partial, largest], [first.slices, columns], grid);
    first.partial.dispose();
    if (norm === "inf") return largest;
    const squares = queueColumnSlices(device, COLUMN_SQUARES, x, [largest]);
    const out = device.empty([columns]);
    device.dispatch(COLUMN_ROOT_OF_SLICES, [squares.partial, largest, out], [squares.slices, columns], grid);
    squares.partial.dispose();
    largest.dispose();
    return out;
  },
  cpu(device, x, norm = "l2") {
    const [rows, columns] = matrixShape(x, "columnNorms");
    requireF32([x], "columnNorms");
    const values = (x as CpuTensor).floats;
    return device.wrap(
      Float64Array.from({ length: columns }, (_, j) => normOf(values, j, rows, columns, norm)),
      [columns],
    );
  },
});
