import type { GpuDevice } from "../gpu/gpu_device.ts";
import { forEachRowWindow, type MatrixView, windowOf } from "../gpu/matrix_view.ts";
import { CHOLESKY_ROW_BOUNDS } from "../kernels/cholesky_panel.ts";
import type { Tensor } from "../tensor.ts";

/** Queues the bits of √mᵢᵢ of a positive semidefinite matrix M: no entry of row i of its factor is larger, and |mᵢⱼ| ≤ √(mᵢᵢ mⱼⱼ). */
export function queueRowBounds(device: GpuDevice, matrix: MatrixView, bounds: Tensor, where: string): void {
  forEachRowWindow(device, matrix, where, (rows, firstRow) => {
    const { window, base } = windowOf(device, rows);
    device.dispatch(
      CHOLESKY_ROW_BOUNDS,
      [window, bounds],
      [rows.rows, rows.stride, base, firstRow],
      [Math.ceil(rows.rows / 64)],
    );
  });
}
