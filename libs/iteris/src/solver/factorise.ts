import type { CpuTensor, Tensor } from "@lora-loom/tensor";
import { factorOnDevice } from "./device_factor.ts";
import type { Factor } from "./factor.ts";
import { type Conditioning, factorOnHost } from "./host_factor.ts";

/**
 * Factors `gram` + `ridge`·I where the Gram matrix lives.
 *
 * @throws {IterisError} `singular_system`
 */
export function factorise(gram: Tensor, ridge: number, conditioning: Conditioning): Promise<Factor> {
  return gram.device.info.backend === "cpu"
    ? factorOnHost(gram as CpuTensor, ridge, conditioning)
    : factorOnDevice(gram, ridge, conditioning);
}
