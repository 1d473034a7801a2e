import { type CpuTensor, defineOperation, elementCount, type Tensor } from "@lora-loom/tensor";

/** into = x, of one shape. */
export const copyInto: (x: Tensor, into: Tensor) => void = defineOperation<[Tensor, Tensor], void>({
  name: "iteris_copy_into",
  kernels: [],
  gpu: (device, x, into) => device.copyElements(x, 0, into, 0, elementCount(x.shape)),
  cpu: (_device, x, into) => (into as CpuTensor).floats.set((x as CpuTensor).floats),
});
