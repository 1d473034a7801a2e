import type { CpuTensor } from "../cpu/cpu_device.ts";
import { defineOperation } from "../operation.ts";
import { BYTES_PER_ELEMENT, elementCount, type Tensor } from "../tensor.ts";

/** A new tensor with the elements of `x`. */
export const copy: (x: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: "copy",
  kernels: [],
  gpu(device, x) {
    const out = device.empty(x.shape, x.dtype);
    // Copies move whole words; the last word of 16-bit elements may be half used.
    const perWord = 4 / BYTES_PER_ELEMENT[x.dtype];
    device.copyElements(x, 0, out, 0, Math.ceil(elementCount(x.shape) / perWord) * perWord);
    return out;
  },
  cpu: (device, x) => device.wrap((x as CpuTensor).data.slice(), x.shape, x.dtype),
});
