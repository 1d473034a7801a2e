import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import type { DType, Tensor } from "../tensor.ts";
import type { PooledBuffer } from "./buffer_pool.ts";

/** Memory shared by a tensor and its reshapes. */
export interface Allocation {
  readonly pooled: PooledBuffer;
  owners: number;
}

/** A tensor on a GPU: one of the owners of its memory. */
export class GpuTensor implements Tensor {
  #allocation: Allocation | undefined;
  readonly #release: (allocation: Allocation) => void;

  constructor(
    readonly device: Device,
    readonly shape: readonly number[],
    readonly dtype: DType,
    allocation: Allocation,
    release: (allocation: Allocation) => void,
  ) {
    allocation.owners++;
    this.#allocation = allocation;
    this.#release = release;
  }

  get disposed(): boolean {
    return this.#allocation === undefined;
  }

  get allocation(): Allocation {
    if (this.#allocation) return this.#allocation;
    throw new TensorError(
      "tensor_disposed",
      `a tensor of shape [${this.shape}] was disposed`,
      "dispose it after its last use",
    );
  }

  dispose(): void {
    const allocation = this.#allocation;
    this.#allocation = undefined;
    if (allocation && --allocation.owners === 0) this.#release(allocation);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
