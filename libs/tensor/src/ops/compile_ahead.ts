import type { Device } from "../device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { GEMM_FORMS } from "../kernels/gemm_interface.ts";
import { longPanelKernels } from "./cholesky_panels.ts";
import { LONG_MATRIX_UNIT_KERNELS } from "./matrix_unit_kernels.ts";
import { readsHalves } from "./matrix_units.ts";
import { formKey, PRODUCT_VARIANTS } from "./product_variants.ts";

/** Variants of products without matrix units that large models come by on any hardware. */
const COMMON_VARIANTS = ["tiled_128", "tiled_32x128"];
const COMMON_FORMS = GEMM_FORMS.filter(({ transposeA, transposeB, vec4, weighted }) =>
  vec4 && !weighted && !(transposeA && transposeB)
);

/** Kernels of large products and factorisations that take a driver a good part of a second each, nine tenths of all compiling. */
function longKernels(device: Device): readonly Kernel[] {
  const hasUnits = readsHalves(device);
  return [
    ...hasUnits ? LONG_MATRIX_UNIT_KERNELS : [],
    ...longPanelKernels(hasUnits ? "halves" : "floats"),
    ...COMMON_VARIANTS.flatMap((name) =>
      COMMON_FORMS.map((form) => PRODUCT_VARIANTS.get(name)!.family!.get(formKey(form))!.kernel)
    ),
  ];
}

/**
 * Compiles, side by side and beside other work, those kernels of large products and factorisations that take drivers of hardware longest: 10 s
 * one after the other on a machine that has not met them before, half of it so. Where a driver remembers them it takes no time, and
 * software drivers compile when a kernel is first used.
 *
 * @returns a promise that does not fail: what cannot be compiled tells when it is used
 */
export async function compileAhead(device: Device): Promise<void> {
  const { class: kind } = device.info;
  if (kind !== "tensor" && kind !== "gpu") return;
  await Promise.allSettled(longKernels(device).map((kernel) => (device as GpuDevice).compile([kernel])));
}
