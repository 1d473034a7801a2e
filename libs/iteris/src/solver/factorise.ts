import type { CpuTensor, Tensor } from "@lora-loom/tensor";
import type { Factor } from "./factor.ts";
import { type Conditioning, factorOnHost } from "./host_factor.ts";

/**
 * Factors `gram` + `ridge`·I where the Gram matrix lives.
 *
 * @throws {IterisError} `singular_system`
 */
export function factorise(gram: Tensor, ridge: number, conditioning: Conditioning): Promise<Factor> {
  return factorOnHost(gram as CpuTensor, ridge, conditioning);
}
