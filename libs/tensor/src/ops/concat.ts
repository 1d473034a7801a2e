import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import { block, wholeMatrix } from "../gpu/matrix_view.ts";
import { COPY_RECTANGLE } from "../kernels/copy_rectangle.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape, requireDType } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { queueCopyRectangle, require32Bit } from "./rectangles.ts";

/** Where each matrix starts along the axis that grows, and the size that the others share. */
function layout(tensors: readonly Tensor[], axis: 0 | 1, where: string) {
  const first = tensors[0];
  if (!first) throw new TensorError("no_tensor", `${where} got no tensors`, "pass at least one", where);
  require32Bit(tensors, where);
  requireDType(tensors, first.dtype, where);
  const shared = matrixShape(first, where)[1 - axis]!;
  const starts: number[] = [];
  let total = 0;
  for (const tensor of tensors) {
    const shape = matrixShape(tensor, where);
    if (shape[1 - axis] !== shared) {
      throw new TensorError(
        "shape_mismatch",
        `${where} got shapes [${first.shape}] and [${shape}]`,
        `pass matrices with equally many ${axis === 0 ? "columns" : "rows"}`,
        where,
      );
    }
    starts.push(total);
    total += shape[axis];
  }
  return { starts, total, shared, dtype: first.dtype };
}

/**
 * Stacks matrices on top of each other: `[r₁, n], [r₂, n], … → [Σr, n]`.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const concatRows: (tensors: readonly Tensor[]) => Tensor = defineOperation<
  [readonly Tensor[]],
  Tensor
>({
  name: "concatRows",
  kernels: [],
  gpu(device, tensors) {
    const { starts, total, shared, dtype } = layout(tensors, 0, "concatRows");
    const out = device.empty([total, shared], dtype);
    tensors.forEach((tensor, i) =>
      device.copyElements(tensor, 0, out, starts[i]! * shared, tensor.shape[0]! * shared)
    );
    return out;
  },
  cpu(device, tensors) {
    const { starts, total, shared, dtype } = layout(tensors, 0, "concatRows");
    const out = device.zeros([total, shared], dtype);
    tensors.forEach((tensor, i) => out.data.set((tensor as CpuTensor).data, starts[i]! * shared));
    return out;
  },
});

/**
 * Puts matrices side by side: `[m, c₁], [m, c₂], … → [m, Σc]`.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const concatColumns: (tensors: readonly Tensor[]) => Tensor = defineOperation<
  [readonly Tensor[]],
  Tensor
>({
  name: "concatColumns",
  kernels: [COPY_RECTANGLE],
  gpu(device, tensors) {
    const { starts, total, shared, dtype } = layout(tensors, 1, "concatColumns");
    const out = device.empty([shared, total], dtype);
    const target = wholeMatrix(out, "concatColumns");
    tensors.forEach((tensor, i) => {
      const from = wholeMatrix(tensor, "concatColumns");
      queueCopyRectangle(device, from, block(target, [0, shared], [starts[i]!, starts[i]! + from.columns]));
    });
    return out;
  },
  cpu: (device, tensors) => concatColumnsOnCpu(device, tensors),
});

function concatColumnsOnCpu(device: CpuDevice, tensors: readonly Tensor[]): Tensor {
  const { starts, total, shared, dtype } = layout(tensors, 1, "concatColumns");
  const out = device.zeros([shared, total], dtype);
  tensors.forEach((tensor, i) => {
    const columns = tensor.shape[1]!;
    const data = (tensor as CpuTensor).data;
    for (let row = 0; row < shared; row++) {
      out.data.set(data.subarray(row * columns, (row + 1) * columns), row * total + starts[i]!);
    }
  });
  return out;
}
