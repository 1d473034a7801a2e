import type { Device, Tensor } from "@lora-loom/tensor";
import { copyTo } from "./algebra.ts";
import type { Delta } from "./base_model.ts";

/** A tensor on a device: itself where it is there, else a copy, which `owned` takes. */
export async function placedTensor(tensor: Tensor, device: Device, owned: DisposableStack): Promise<Tensor> {
  return tensor.device === device ? tensor : owned.use(await copyTo(device, tensor));
}

/** The same for the deltas of one module, as far as there are any. */
export async function placedDeltas(
  deltas: readonly (Delta | undefined)[],
  device: Device,
  owned: DisposableStack,
): Promise<(Delta | undefined)[]> {
  const placed: (Delta | undefined)[] = [];
  for (const delta of deltas) {
    placed.push(
      delta &&
        { a: await placedTensor(delta.a, device, owned), b: await placedTensor(delta.b, device, owned) },
    );
  }
  return placed;
}
