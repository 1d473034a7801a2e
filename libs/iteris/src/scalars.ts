import { concatRows, type Device, elementCount, reshape, type Tensor } from "@lora-loom/tensor";

/** So many tensors may wait, each in a buffer of its own. */
const MOST_PENDING = 64;

/** Numbers on their way from a device, and who waits for them. */
interface Pending {
  readonly tensor: Tensor;
  readonly receive: (...values: number[]) => void;
}

/** Numbers that are being computed on devices and are read back together, since each read-back waits for all queued work. */
export class Scalars implements Disposable {
  #pending: Pending[] = [];

  /** Takes over a tensor of a few elements, and calls `receive` with them on the next {@linkcode Scalars.settle}. */
  add(tensor: Tensor, receive: (...values: number[]) => void): void {
    this.#pending.push({ tensor, receive });
  }

  /** Reads the numbers back if many wait. */
  async settleSome(): Promise<void> {
    if (this.#pending.length > MOST_PENDING) await this.settle();
  }

  /** Reads all numbers back. */
  async settle(): Promise<void> {
    const byDevice = Map.groupBy(this.#pending, ({ tensor }) => tensor.device);
    this.#pending = [];
    for (const [device, pending] of byDevice) await readBack(device, pending);
  }

  /** Forgets what was not read back. */
  [Symbol.dispose](): void {
    for (const { tensor } of this.#pending.splice(0)) tensor.dispose();
  }
}

async function readBack(device: Device, pending: readonly Pending[]): Promise<void> {
  using owned = new DisposableStack();
  const columns = pending.map(({ tensor }) => {
    owned.use(tensor);
    return owned.use(reshape(tensor, [elementCount(tensor.shape), 1]));
  });
  const values = await device.download(owned.use(concatRows(columns)));
  let first = 0;
  for (const { tensor, receive } of pending) {
    receive(...values.subarray(first, first += elementCount(tensor.shape)));
  }
}
