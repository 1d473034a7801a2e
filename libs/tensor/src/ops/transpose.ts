import type { CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { MAX_WORKGROUPS } from "../gpu/limits.ts";
import { block, forEachRowWindow, type MatrixView, wholeMatrix, windowOf } from "../gpu/matrix_view.ts";
import { TRANSPOSE_DIRECT, TRANSPOSE_TILE, TRANSPOSE_TILED } from "../kernels/transpose.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { require32Bit } from "./rectangles.ts";

/** Queues out = xᵀ for two views that share no memory. */
export function queueTranspose(device: GpuDevice, x: MatrixView, out: MatrixView): void {
  const kernel = device.info.class === "software" ? TRANSPOSE_DIRECT : TRANSPOSE_TILED;
  // Rows of the result are columns of x, so each window of the one meets each window of the other.
  forEachRowWindow(device, out, "transpose", (outRows, columnStart) => {
    forEachRowWindow(device, x, "transpose", (xRows, rowStart) => {
      const from = windowOf(device, block(xRows, [0, xRows.rows], [columnStart, columnStart + outRows.rows]));
      const to = windowOf(device, block(outRows, [0, outRows.rows], [rowStart, rowStart + xRows.rows]));
      const step = MAX_WORKGROUPS * TRANSPOSE_TILE;
      for (let row = 0; row < xRows.rows; row += step) {
        for (let column = 0; column < outRows.rows; column += step) {
          const [rows, columns] = [Math.min(step, xRows.rows - row), Math.min(step, outRows.rows - column)];
          device.dispatch(
            kernel,
            [from.window, to.window],
            [
              rows,
              columns,
              x.stride,
              from.base + row * x.stride + column,
              out.stride,
              to.base + column * out.stride + row,
            ],
            [Math.ceil(columns / TRANSPOSE_TILE), Math.ceil(rows / TRANSPOSE_TILE)],
          );
        }
      }
    });
  });
}

/**
 * Xᵀ as a new tensor, `[columns, rows]`.
 *
 * @throws {TensorError} `shape_mismatch` unless `x` is a matrix, `dtype_mismatch` for 16-bit elements
 */
export const transpose: (x: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: "transpose",
  kernels: [TRANSPOSE_TILED, TRANSPOSE_DIRECT],
  gpu(device, x) {
    const [rows, columns] = matrixShape(x, "transpose");
    require32Bit([x], "transpose");
    const out = device.empty([columns, rows], x.dtype);
    if (rows > 0 && columns > 0) {
      queueTranspose(device, wholeMatrix(x, "transpose"), wholeMatrix(out, "transpose"));
    }
    return out;
  },
  cpu(device, x) {
    const [rows, columns] = matrixShape(x, "transpose");
    require32Bit([x], "transpose");
    const out = device.zeros([columns, rows], x.dtype);
    const [from, to] = [(x as CpuTensor).data, out.data];
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j]!;
    }
    return out;
  },
});
