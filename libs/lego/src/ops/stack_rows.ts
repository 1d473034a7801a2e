import { type CpuTensor, defineOperation, elementCount, type Tensor } from "@lora-loom/tensor";

/** Stacks matrices with equally many columns: `[n₁, columns], [n₂, columns], … → [n₁ + n₂ + …, columns]`. */
export const stackRows: (parts: readonly Tensor[]) => Tensor = defineOperation<[readonly Tensor[]], Tensor>({
  name: "lego.stack_rows",
  kernels: [],
  gpu(device, parts) {
    const stack = device.empty(stackedShape(parts));
    let start = 0;
    for (const part of parts) {
      device.copyElements(part, 0, stack, start, elementCount(part.shape));
      start += elementCount(part.shape);
    }
    return stack;
  },
  cpu(device, parts) {
    const shape = stackedShape(parts);
    const stack = new Float64Array(elementCount(shape));
    let start = 0;
    for (const part of parts) {
      stack.set((part as CpuTensor).floats, start);
      start += elementCount(part.shape);
    }
    return device.wrap(stack, shape);
  },
});

function stackedShape(parts: readonly Tensor[]): [number, number] {
  return [parts.reduce((total, part) => total + part.shape[0]!, 0), parts[0]!.shape[1]!];
}
