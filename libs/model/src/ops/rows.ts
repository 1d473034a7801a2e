import {
  type CpuTensor,
  defineOperation,
  type GpuDevice,
  type GpuLimits,
  type Kernel,
  matrixShape,
  type Tensor,
} from "@lora-loom/tensor";
import { ModelError } from "../errors.ts";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

const gatherKernel: Kernel = {
  name: "gather_rows",
  buffers: [
    { name: "source", element: "f32", access: "read" },
    { name: "rows", element: "u32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"], ["width", "u32"], ["first", "u32"], ["end", "u32"]],
  // `source` is bound from row `first` on; rows outside of what is bound are left to other dispatches.
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.width;
  let wanted = rows[row];
  if (wanted < params.first || wanted >= params.end) { return; }
  result[i] = source[(wanted - params.first) * params.width + (i - row * params.width)];
}`,
};

const scatterKernel: Kernel = {
  name: "scatter_rows",
  buffers: gatherKernel.buffers,
  params: [["count", "u32"], ["width", "u32"]],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.width;
  result[rows[row] * params.width + (i - row * params.width)] = source[i];
}`,
};

/** Runs of rows that can be bound at once, each starting where a binding may start. */
function rowWindows(
  rows: number,
  width: number,
  { maxBindingBytes, windowAlignmentBytes }: GpuLimits,
): [number, number][] {
  const alignment = windowAlignmentBytes / greatestCommonDivisor(windowAlignmentBytes, 4 * width);
  const most = Math.floor(maxBindingBytes / (4 * width));
  const step = most >= rows ? rows : Math.floor(most / alignment) * alignment;
  if (step === 0) {
    throw new ModelError(
      "binding_too_large",
      `${alignment} rows of ${width} elements do not fit a binding of ${maxBindingBytes} bytes`,
      "use a device with larger bindings, or `device: cpu`",
      "gather_rows",
    );
  }
  return Array.from(
    { length: Math.ceil(rows / step) },
    (_, index) => [index * step, Math.min(rows, (index + 1) * step)],
  );
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** Queues a gather from a matrix of any size, within the given limits. */
export function dispatchGather(device: GpuDevice, limits: GpuLimits, source: Tensor, rows: Tensor): Tensor {
  const [sourceRows, width] = matrixShape(source, "gather_rows");
  const count = rows.shape[0]! * width;
  const result = device.empty([rows.shape[0]!, width]);
  for (const [first, end] of rowWindows(sourceRows, width, limits)) {
    const window = { tensor: source, start: first * width, end: end * width };
    device.dispatch(gatherKernel, [window, rows, result], [count, width, first, end], grid(count, LANES));
  }
  return result;
}

/**
 * Picks rows of a matrix, in any order and repeatedly: `[n, width], u32 [m] → [m, width]`. An embedding look-up, or the
 * last token of each sequence. The caller sees to it that every index is below n.
 */
export const gatherRows: (source: Tensor, rows: Tensor) => Tensor = defineOperation<[Tensor, Tensor], Tensor>(
  {
    name: "gather_rows",
    kernels: [gatherKernel],
    gpu: (device, source, rows) => dispatchGather(device, device.limits, source, rows),
    cpu(device, source, rows) {
      const [, width] = matrixShape(source, "gather_rows");
      const result = device.zeros([rows.shape[0]!, width]);
      (rows as CpuTensor).data.forEach((from, to) => {
        result.floats.set(
          (source as CpuTensor).floats.subarray(from * width, (from + 1) * width),
          to * width,
        );
      });
      return result;
    },
  },
);

/**
 * Writes the rows of `source` `[m, width]` to the given, distinct rows of `into` `[n, width]`; the others keep what they
 * hold. This is how keys and values enter their cache.
 */
export const scatterRows: (source: Tensor, rows: Tensor, into: Tensor) => void = defineOperation<
  [Tensor, Tensor, Tensor],
  void
>({
  name: "scatter_rows",
  kernels: [scatterKernel],
  gpu(device, source, rows, into) {
    const [count, width] = matrixShape(source, "scatter_rows");
    device.dispatch(scatterKernel, [source, rows, into], [count * width, width], grid(count * width, LANES));
  },
  cpu(_device, source, rows, into) {
    const [, width] = matrixShape(source, "scatter_rows");
    (rows as CpuTensor).data.forEach((to, from) => {
      (into as CpuTensor).floats.set(
        (source as CpuTensor).floats.subarray(from * width, (from + 1) * width),
        to * width,
      );
    });
  },
});

/** Writes the rows of `source` `[m, width]` to those of `into` `[n, width]` from row `first` on; the others keep what they hold. */
export const putRows: (source: Tensor, into: Tensor, first: number) => void = defineOperation<
  [Tensor, Tensor, number],
  void
>({
  name: "put_rows",
  kernels: [],
  gpu(device, source, into, first) {
    const [count, width] = matrixShape(source, "put_rows");
    device.copyElements(source, 0, into, first * width, count * width);
  },
  cpu(_device, source, into, first) {
    const [, width] = matrixShape(source, "put_rows");
    (into as CpuTensor).floats.set((source as CpuTensor).floats, first * width);
  },
});
