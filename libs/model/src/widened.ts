import { cast, type Tensor } from "@lora-loom/tensor";

/** What `use` makes of a tensor in f32, which is widened for as long as that takes where it is stored in 16 bits. */
export function withWidened<T>(tensor: Tensor, use: (x: Tensor) => T): T {
  using widened = tensor.dtype === "f32" ? undefined : cast(tensor, "f32");
  return use(widened ?? tensor);
}
