import type { CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import { block, wholeMatrix } from "../gpu/matrix_view.ts";
import { COPY_RECTANGLE } from "../kernels/copy_rectangle.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { queueCopyRectangle, require32Bit } from "./rectangles.ts";

function checkRange(start: number, end: number, size: number, where: string): void {
  if (Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size) return;
  throw new TensorError(
    "range_mismatch",
    `${where} got the range [${start}, ${end}) of an axis of ${size}`,
    "pass whole numbers with 0 ≤ start ≤ end ≤ size",
    where,
  );
}

/**
 * Rows [start, end) of a matrix as a new tensor, `[end − start, columns]`.
 *
 * @throws {TensorError} `range_mismatch`, `shape_mismatch`, `dtype_mismatch`
 */
export const sliceRows: (x: Tensor, start: number, end: number) => Tensor = defineOperation<
  [Tensor, number, number],
  Tensor
>({
  name: "sliceRows",
  kernels: [],
  gpu(device, x, start, end) {
    const [rows, columns] = matrixShape(x, "sliceRows");
    require32Bit([x], "sliceRows");
    checkRange(start, end, rows, "sliceRows");
    const out = device.empty([end - start, columns], x.dtype);
    device.copyElements(x, start * columns, out, 0, (end - start) * columns);
    return out;
  },
  cpu(device, x, start, end) {
    const [rows, columns] = matrixShape(x, "sliceRows");
    require32Bit([x], "sliceRows");
    checkRange(start, end, rows, "sliceRows");
    return device.wrap(
      (x as CpuTensor).data.slice(start * columns, end * columns),
      [end - start, columns],
      x.dtype,
    );
  },
});

/**
 * Columns [start, end) of a matrix as a new tensor, `[rows, end − start]`.
 *
 * @throws {TensorError} `range_mismatch`, `shape_mismatch`, `dtype_mismatch`
 */
export const sliceColumns: (x: Tensor, start: number, end: number) => Tensor = defineOperation<
  [Tensor, number, number],
  Tensor
>({
  name: "sliceColumns",
  kernels: [COPY_RECTANGLE],
  gpu(device, x, start, end) {
    const [rows, columns] = matrixShape(x, "sliceColumns");
    require32Bit([x], "sliceColumns");
    checkRange(start, end, columns, "sliceColumns");
    const out = device.empty([rows, end - start], x.dtype);
    queueCopyRectangle(
      device,
      block(wholeMatrix(x, "sliceColumns"), [0, rows], [start, end]),
      wholeMatrix(out, "sliceColumns"),
    );
    return out;
  },
  cpu(device, x, start, end) {
    const [rows, columns] = matrixShape(x, "sliceColumns");
    require32Bit([x], "sliceColumns");
    checkRange(start, end, columns, "sliceColumns");
    const out = device.zeros([rows, end - start], x.dtype);
    const data = (x as CpuTensor).data;
    for (let row = 0; row < rows; row++) {
      out.data.set(data.subarray(row * columns + start, row * columns + end), row * (end - start));
    }
    return out;
  },
});
