/** Kernels with an invocation for each element on the diagonals of square blocks, which stand one below the other in a matrix. */
import {
  forEachRowWindow,
  type GpuDevice,
  type Kernel,
  type KernelBuffer,
  type Tensor,
  wholeMatrix,
  windowOf,
} from "@lora-loom/tensor";

const WORKGROUP = 64;

/** What a kernel along diagonals does. */
export interface DiagonalWork {
  readonly name: string;
  /** Buffers after `matrix`, whose elements are f32 as well. */
  readonly vectors: readonly Pick<KernelBuffer, "name" | "access">[];
  /** Further parameters, f32. */
  readonly scalars?: readonly string[];
  readonly writesMatrix?: boolean;
  /** WGSL for `matrix[i]`, which stands in `row` of the whole matrix and in `column`. */
  readonly code: string;
}

/** The kernel for {@linkcode dispatchAlongDiagonal}. */
export function diagonalKernel(work: DiagonalWork): Kernel {
  const { name, vectors, scalars = [], writesMatrix = false, code } = work;
  return {
    name,
    buffers: [
      { name: "matrix", element: "f32", access: writesMatrix ? "read_write" : "read" },
      ...vectors.map((vector) => ({ ...vector, element: "f32" })),
    ],
    params: [
      ...(["n", "base", "first", "rows"] as const).map((count) => [count, "u32"] as const),
      ...scalars.map((scalar) => [scalar, "f32"] as const),
    ],
    code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.rows) { return; }
  let row = params.first + id.x;
  let column = row % params.n;
  let i = params.base + id.x * params.n + column;${code}
}`,
  };
}

/** Queues such a kernel for a matrix `[rows, n]`, in as many parts as it takes to bind it. */
export function dispatchAlongDiagonal(
  device: GpuDevice,
  kernel: Kernel,
  matrix: Tensor,
  vectors: readonly Tensor[],
  scalars: readonly number[] = [],
): void {
  forEachRowWindow(device, wholeMatrix(matrix, kernel.name), kernel.name, (view, first) => {
    const { window, base } = windowOf(device, view);
    const params = [view.columns, base, first, view.rows, ...scalars];
    device.dispatch(kernel, [window, ...vectors], params, [Math.ceil(view.rows / WORKGROUP)]);
  });
}
