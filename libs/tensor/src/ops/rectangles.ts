import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import { block, forEachRowWindow, type MatrixView, windowOf } from "../gpu/matrix_view.ts";
import { COPY_RECTANGLE } from "../kernels/copy_rectangle.ts";
import { BYTES_PER_ELEMENT, type Tensor } from "../tensor.ts";

/** Throws for tensors of 16-bit elements, two of which share a word. */
export function require32Bit(tensors: readonly Tensor[], where: string): void {
  const packed = tensors.find((tensor) => BYTES_PER_ELEMENT[tensor.dtype] !== 4);
  if (!packed) return;
  throw new TensorError(
    "dtype_mismatch",
    `${where} got a tensor of ${packed.dtype}, expected 32-bit elements`,
    'convert it first: cast(x, "f32")',
    where,
  );
}

/** Queues a copy between two views of one size that share no memory. */
export function queueCopyRectangle(device: GpuDevice, from: MatrixView, to: MatrixView): void {
  if (from.rows === 0 || from.columns === 0) return;
  // The view with the longer rows decides how many of them fit a window.
  const wider = from.stride >= to.stride ? from : to;
  forEachRowWindow(device, wider, "copy", ({ rows: rowCount }, rowStart) => {
    const rows = [rowStart, rowStart + rowCount] as const;
    const source = windowOf(device, block(from, rows, [0, from.columns]));
    const target = windowOf(device, block(to, rows, [0, to.columns]));
    const count = rowCount * from.columns;
    device.dispatch(
      COPY_RECTANGLE,
      [source.window, target.window],
      [count, from.columns, from.stride, source.base, to.stride, target.base],
      foldGrid(Math.ceil(count / 64)),
    );
  });
}
