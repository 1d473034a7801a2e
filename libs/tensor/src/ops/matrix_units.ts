import type { Device } from "../device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { SUBGROUP } from "../kernels/gemm_matrix_units.ts";

/** How exact a product on matrix units is: `f32` as exact as plain f32, `f16` with operands rounded to 11 bits. */
export type ProductPrecision = "f32" | "f16";

/** Shorter inner lengths, fewer rows or columns, and products of less work than this are left to other kernels: packing would cost more than it saves. */
export const LEAST_ON_MATRIX_UNITS = { inner: 128, rows: 64, columns: 64, work: 2 ** 31 };

/** Name of these kernels among the families of products. */
export const MATRIX_UNITS = "matrix_units";

/** Whether a device has the matrix units that these kernels use. */
export function offersMatrixUnits(device: GpuDevice): boolean {
  return device.info.class === "tensor" && device.features.has("chromium-experimental-subgroup-matrix") &&
    device.limits.subgroupSize === SUBGROUP;
}

/** Whether large products read operands of 16 bits as they are stored, and all the faster; elsewhere each product widens them first. */
export function readsHalves(device: Device): boolean {
  return device.info.class === "tensor" && offersMatrixUnits(device as GpuDevice);
}
