import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import {
  batchOf,
  block,
  fitsBinding,
  forEachRowWindow,
  type MatrixView,
  windowOf,
} from "../gpu/matrix_view.ts";
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

/** Several rectangles of one size, each so many elements after the one before. */
export interface RectangleBatch {
  readonly count: number;
  readonly from: number;
  readonly to: number;
}

/** Queues copies between two batches of views of one size; those are the first. In one dispatch where all of them can be bound. */
export function queueCopyRectangles(
  device: GpuDevice,
  from: MatrixView,
  to: MatrixView,
  { count, from: apartFrom, to: apartTo }: RectangleBatch,
): void {
  const [source, target] = [batchOf(from, count, apartFrom), batchOf(to, count, apartTo)];
  if (fitsBinding(device, source) && fitsBinding(device, target)) {
    const [x, out] = [windowOf(device, source), windowOf(device, target)];
    const elements = from.rows * from.columns;
    device.dispatch(
      COPY_RECTANGLE,
      [x.window, out.window],
      [elements, from.columns, from.stride, x.base, to.stride, out.base, apartFrom, apartTo],
      [...foldGrid(Math.ceil(elements / 64)), count],
    );
    return;
  }
  for (let i = 0; i < count; i++) {
    queueCopyRectangle(device, { ...from, offset: from.offset + i * apartFrom }, {
      ...to,
      offset: to.offset + i * apartTo,
    });
  }
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
      [count, from.columns, from.stride, source.base, to.stride, target.base, 0, 0],
      foldGrid(Math.ceil(count / 64)),
    );
  });
}
