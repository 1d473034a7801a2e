import { concatRows, reshape, type Tensor } from "@lora-loom/tensor";

/** So many numbers may wait, each in a buffer of its own. */
const MOST_PENDING = 64;

/** Numbers that are being computed on a device and are read back together, since each read-back waits for all queued work. */
export class Scalars implements Disposable {
  #pending: { readonly tensor: Tensor; readonly receive: (value: number) => void }[] = [];

  /** Takes over a tensor of one element, and calls `receive` with it on the next {@linkcode Scalars.settle}. */
  add(tensor: Tensor, receive: (value: number) => void): void {
    this.#pending.push({ tensor, receive });
  }

  /** Reads the numbers back if many wait. */
  async settleSome(): Promise<void> {
    if (this.#pending.length > MOST_PENDING) await this.settle();
  }

  /** Reads all numbers back. */
  async settle(): Promise<void> {
    if (this.#pending.length === 0) return;
    const pending = this.#pending;
    this.#pending = [];
    const rows = pending.map(({ tensor }) => reshape(tensor, [1, 1]));
    using column = concatRows(rows);
    const values = await column.device.download(column);
    pending.forEach(({ tensor, receive }, index) => {
      receive(values[index]!);
      rows[index]!.dispose();
      tensor.dispose();
    });
  }

  /** Forgets what was not read back. */
  [Symbol.dispose](): void {
    for (const { tensor } of this.#pending.splice(0)) tensor.dispose();
  }
}
