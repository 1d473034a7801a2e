import { type CpuTensor, defineOperation, type Kernel, type Tensor } from "@lora-loom/tensor";

const TILE = 16;

/** Copies a matrix below others; a tile passes through workgroup memory so that reads and writes are both contiguous. */
const kernel: Kernel = {
  name: "lego_stack_transposed",
  buffers: [
    { name: "part", element: "f32", access: "read" },
    { name: "stack", element: "f32", access: "read_write" },
  ],
  params: [["rows", "u32"], ["columns", "u32"], ["first_row", "u32"]],
  code: /* wgsl */ `
const TILE = ${TILE}u;
var<workgroup> tile: array<f32, ${TILE * (TILE + 1)}>;

@compute @workgroup_size(${TILE}, ${TILE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) invocation: vec3u) {
  let row = group.y * TILE + invocation.y;
  let column = group.x * TILE + invocation.x;
  if (row < params.rows && column < params.columns) {
    tile[invocation.y * (TILE + 1u) + invocation.x] = part[row * params.columns + column];
  }
  workgroupBarrier();
  let source_row = group.y * TILE + invocation.x;
  let source_column = group.x * TILE + invocation.y;
  if (source_row < params.rows && source_column < params.columns) {
    stack[(params.first_row + source_column) * params.rows + source_row] = tile[invocation.x * (TILE + 1u) + invocation.y];
  }
}`,
};

/** Stacks the transposes of matrices with equally many rows: `[rows, n₁], [rows, n₂], … → [n₁ + n₂ + …, rows]`. */
export const stackTransposed: (parts: readonly Tensor[]) => Tensor = defineOperation<
  [readonly Tensor[]],
  Tensor
>({
  name: "lego.stack_transposed",
  kernels: [kernel],
  gpu(device, parts) {
    const stack = device.empty(stackedShape(parts));
    let firstRow = 0;
    for (const part of parts) {
      const [rows, columns] = part.shape as [number, number];
      device.dispatch(kernel, [part, stack], [rows, columns, firstRow], [
        Math.ceil(columns / TILE),
        Math.ceil(rows / TILE),
      ]);
      firstRow += columns;
    }
    return stack;
  },
  cpu(device, parts) {
    const [height, rows] = stackedShape(parts);
    const stack = new Float64Array(height * rows);
    let firstRow = 0;
    for (const part of parts) {
      const columns = part.shape[1]!;
      const data = (part as CpuTensor).floats;
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) stack[(firstRow + j) * rows + i] = data[i * columns + j]!;
      }
      firstRow += columns;
    }
    return device.wrap(stack, [height, rows]);
  },
});

function stackedShape(parts: readonly Tensor[]): [number, number] {
  return [parts.reduce((total, part) => total + part.shape[1]!, 0), parts[0]!.shape[0]!];
}
