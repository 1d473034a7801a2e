import { type CpuTensor, defineOperation, type Kernel, type Tensor } from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";
import { matrixShape } from "./shapes.ts";

const gatherKernel: Kernel = {
  name: "gather_rows",
  buffers: [
    { name: "source", element: "f32", access: "read" },
    { name: "rows", element: "u32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"], ["width", "u32"]],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.width;
  result[i] = source[rows[row] * params.width + (i - row * params.width)];
}`,
};

const scatterKernel: Kernel = {
  name: "scatter_rows",
  buffers: gatherKernel.buffers,
  params: gatherKernel.params,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.width;
  result[rows[row] * params.width + (i - row * params.width)] = source[i];
}`,
};

/**
 * Picks rows of a matrix, in any order and repeatedly: `[n, width], u32 [m] → [m, width]`. An embedding look-up, or the
 * last token of each sequence. The caller sees to it that every index is below n.
 */
export const gatherRows: (source: Tensor, rows: Tensor) => Tensor = defineOperation<[Tensor, Tensor], Tensor>({
  name: "gather_rows",
  kernels: [gatherKernel],
  gpu(device, source, rows) {
    const [, width] = matrixShape(source, "gather_rows");
    const count = rows.shape[0]! * width;
    const result = device.empty([rows.shape[0]!, width]);
    device.dispatch(gatherKernel, [source, rows, result], [count, width], grid(count, LANES));
    return result;
  },
  cpu(device, source, rows) {
    const [, width] = matrixShape(source, "gather_rows");
    const result = device.zeros([rows.shape[0]!, width]);
    (rows as CpuTensor).data.forEach((from, to) => {
      result.floats.set((source as CpuTensor).floats.subarray(from * width, (from + 1) * width), to * width);
    });
    return result;
  },
});

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
      (into as CpuTensor).floats.set((source as CpuTensor).floats.subarray(from * width, (from + 1) * width), to * width);
    });
  },
});
