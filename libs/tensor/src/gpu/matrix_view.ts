import { TensorError } from "../errors.ts";
import { matrixShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import type { GpuDevice, TensorWindow } from "./gpu_device.ts";

/** A rectangle of a row-major f32 matrix. */
export interface MatrixView {
  readonly tensor: Tensor;
  /** Element of the tensor at which the rectangle starts. */
  readonly offset: number;
  readonly rows: number;
  readonly columns: number;
  /** Elements from one row to the next. */
  readonly stride: number;
}

/** The whole of a matrix. */
export function wholeMatrix(tensor: Tensor, where: string): MatrixView {
  const [rows, columns] = matrixShape(tensor, where);
  return { tensor, offset: 0, rows, columns, stride: columns };
}

/** Rows and columns [start, end) of a view. */
export function block(
  view: MatrixView,
  [rowStart, rowEnd]: readonly [number, number],
  [columnStart, columnEnd]: readonly [number, number],
): MatrixView {
  return {
    ...view,
    offset: view.offset + rowStart * view.stride + columnStart,
    rows: rowEnd - rowStart,
    columns: columnEnd - columnStart,
  };
}

/** Elements from the first to the last of a view, gaps between its rows included. */
function spanOf({ rows, columns, stride }: MatrixView): number {
  return rows === 0 || columns === 0 ? 0 : (rows - 1) * stride + columns;
}

/** The memory of `count` views of one shape, each `apart` elements after the one before, as one long row. */
export function batchOf(first: MatrixView, count: number, apart: number): MatrixView {
  const elements = spanOf(first) + (count - 1) * apart;
  return { ...first, rows: 1, columns: elements, stride: elements };
}

/** True when all of a view can be bound at once, wherever it starts. */
export function fitsBinding(device: GpuDevice, view: MatrixView): boolean {
  const { maxBindingBytes, windowAlignmentBytes } = device.limits;
  return spanOf(view) * 4 + windowAlignmentBytes <= maxBindingBytes;
}

/** What to bind for a view, and where in that window its first element is. */
export function windowOf(device: GpuDevice, view: MatrixView): { window: TensorWindow; base: number } {
  const alignment = device.limits.windowAlignmentBytes / 4;
  const start = Math.floor(view.offset / alignment) * alignment;
  return {
    window: { tensor: view.tensor, start, end: view.offset + Math.max(spanOf(view), 1) },
    base: view.offset - start,
  };
}

/** True when every row of a view starts at a multiple of four elements and has a multiple of four: vec4 access works. */
export function isVec4Aligned({ offset, columns, stride }: MatrixView): boolean {
  return offset % 4 === 0 && columns % 4 === 0 && stride % 4 === 0;
}

/**
 * Cuts a view into runs of rows that can be bound, and calls `visit` with each.
 *
 * @throws {TensorError} `binding_too_large` when one row alone does not fit
 */
export function forEachRowWindow(
  device: GpuDevice,
  view: MatrixView,
  where: string,
  visit: (rows: MatrixView, rowStart: number) => void,
): void {
  if (view.rows === 0 || view.columns === 0) return;
  const { maxBindingBytes, windowAlignmentBytes } = device.limits;
  const perWindow = Math.floor(((maxBindingBytes - windowAlignmentBytes) / 4 - view.columns) / view.stride) +
    1;
  if (perWindow < 1) {
    throw new TensorError(
      "binding_too_large",
      `${where} got rows of ${view.columns} elements; this adapter binds at most ${maxBindingBytes} bytes`,
      "transpose or split the matrix, or use `device: cpu`",
      where,
    );
  }
  for (let start = 0; start < view.rows; start += perWindow) {
    const end = Math.min(view.rows, start + perWindow);
    visit(block(view, [start, end], [0, view.columns]), start);
  }
}
