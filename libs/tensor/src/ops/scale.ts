import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import { forEachRowWindow, wholeMatrix, windowOf } from "../gpu/matrix_view.ts";
import { scaleKernel } from "../kernels/scale.ts";
import { defineOperation } from "../operation.ts";
import { aliasedOutput, matrixShape, requireF32, requireShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";

/** Options of {@linkcode scaleRows} and {@linkcode scaleColumns}. */
export interface ScaleOptions {
  /** Where the result goes; may be `x`. Absent: a new tensor. */
  readonly into?: Tensor;
}

type Axis = "rows" | "columns";

const KERNELS = {
  rows: { apart: scaleKernel("rows", false), inPlace: scaleKernel("rows", true) },
  columns: { apart: scaleKernel("columns", false), inPlace: scaleKernel("columns", true) },
};

function check(x: Tensor, factors: Tensor, axis: Axis, into: Tensor | undefined): void {
  const where = axis === "rows" ? "scaleRows" : "scaleColumns";
  const [rows, columns] = matrixShape(x, where);
  requireF32([x, factors, into], where);
  requireShape(factors, [axis === "rows" ? rows : columns], "factors", where);
  if (into) requireShape(into, x.shape, "into", where);
}

function queueScale(
  device: GpuDevice,
  x: Tensor,
  factors: Tensor,
  axis: Axis,
  into: Tensor | undefined,
): Tensor {
  check(x, factors, axis, into);
  const where = axis === "rows" ? "scaleRows" : "scaleColumns";
  if (into && device.sameMemory(into, factors)) throw aliasedOutput(where);
  const inPlace = into !== undefined && device.sameMemory(into, x);
  const out = into ?? device.empty(x.shape);
  const kernel = inPlace ? KERNELS[axis].inPlace : KERNELS[axis].apart;
  forEachRowWindow(device, wholeMatrix(x, where), where, (view, rowStart) => {
    const { window, base } = windowOf(device, view);
    const count = view.rows * view.columns;
    device.dispatch(
      kernel,
      inPlace ? [window, factors] : [window, factors, { ...window, tensor: out }],
      [count, view.columns, rowStart, base],
      foldGrid(Math.ceil(count / 64)),
    );
  });
  return out;
}

function computeScale(
  device: CpuDevice,
  x: Tensor,
  factors: Tensor,
  axis: Axis,
  into: Tensor | undefined,
): Tensor {
  check(x, factors, axis, into);
  const out = (into ?? device.zeros(x.shape)) as CpuTensor;
  const [values, by, result] = [(x as CpuTensor).floats, (factors as CpuTensor).floats, out.floats];
  const columns = x.shape[1]!;
  for (let i = 0; i < values.length; i++) {
    result[i] = values[i]! * by[axis === "rows" ? Math.floor(i / columns) : i % columns]!;
  }
  return out;
}

/**
 * `diag(s) · X`: row i of `x`, `[rows, columns]`, times `factors[i]`, `[rows]`.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`, `aliased_output`
 */
export const scaleRows: (x: Tensor, factors: Tensor, options?: ScaleOptions) => Tensor = defineOperation<
  [Tensor, Tensor, ScaleOptions?],
  Tensor
>({
  name: "scaleRows",
  kernels: Object.values(KERNELS.rows),
  gpu: (device, x, factors, options) => queueScale(device, x, factors, "rows", options?.into),
  cpu: (device, x, factors, options) => computeScale(device, x, factors, "rows", options?.into),
});

/**
 * `X · diag(s)`: column j of `x`, `[rows, columns]`, times `factors[j]`, `[columns]`.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`, `aliased_output`
 */
export const scaleColumns: (x: Tensor, factors: Tensor, options?: ScaleOptions) => Tensor = defineOperation<
  [Tensor, Tensor, ScaleOptions?],
  Tensor
>({
  name: "scaleColumns",
  kernels: Object.values(KERNELS.columns),
  gpu: (device, x, factors, options) => queueScale(device, x, factors, "columns", options?.into),
  cpu: (device, x, factors, options) => computeScale(device, x, factors, "columns", options?.into),
});
