import type { CpuTensor } from "../cpu/cpu_device.ts";
import { decodeToFloat64 } from "../cpu/decode.ts";
import { encodeElements } from "../cpu/encode.ts";
import { TensorError } from "../errors.ts";
import { foldGrid } from "../gpu/grid.ts";
import { castKernel, CASTS } from "../kernels/cast.ts";
import { defineOperation } from "../operation.ts";
import { type DType, elementCount, type Tensor } from "../tensor.ts";
import { copy } from "./copy.ts";
import { forEachStretch } from "./elementwise.ts";

const KERNELS = new Map(CASTS.map(([from, to]) => [`${from} ${to}`, castKernel(from, to)]));

function check(from: DType, to: DType): void {
  if (from === to || KERNELS.has(`${from} ${to}`)) return;
  throw new TensorError(
    "unsupported_cast",
    `cast from ${from} to ${to} is not offered`,
    'go through f32: cast(cast(x, "f32"), …)',
    "cast",
  );
}

/**
 * The elements in another type, as a new tensor of the same shape. Rounds to nearest, ties to even; subnormals, infinities
 * and NaNs are kept; what is too large for f16 becomes infinite. f32 to u32 cuts the fraction off and stays within range.
 *
 * @throws {TensorError} `unsupported_cast` between u32 and the 16-bit types
 */
export const cast: (x: Tensor, dtype: DType) => Tensor = defineOperation<[Tensor, DType], Tensor>({
  name: "cast",
  kernels: [...KERNELS.values()],
  gpu(device, x, dtype) {
    check(x.dtype, dtype);
    if (x.dtype === dtype) return copy(x);
    const kernel = KERNELS.get(`${x.dtype} ${dtype}`)!;
    const out = device.empty(x.shape, dtype);
    forEachStretch(device, elementCount(x.shape), (start, end) => {
      const windows = [x, out].map((tensor) => ({ tensor, start, end }));
      device.dispatch(kernel, windows, [end - start], foldGrid(Math.ceil((end - start) / 128)));
    });
    return out;
  },
  cpu(device, x, dtype) {
    check(x.dtype, dtype);
    const { data } = x as CpuTensor;
    if (dtype === x.dtype) return device.wrap(data.slice(), x.shape, dtype);
    const values = decodeToFloat64(encodeElements(data, dtype), dtype);
    return device.wrap(values, x.shape, dtype);
  },
});
