import type { Device, Tensor } from "@lora-loom/tensor";
import type { DecoderConfig } from "./config.ts";
import { scatterRows } from "./ops/rows.ts";

/** Keys and values of every layer, `[rows, keyValueHeads·headDim]` each; a sequence owns a run of rows. */
export class KeyValueCache implements Disposable {
  readonly #keys: readonly Tensor[];
  readonly #values: readonly Tensor[];

  constructor(
    device: Device,
    config: Pick<DecoderConfig, "layers" | "keyValueHeads" | "headDim">,
    rows: number,
  ) {
    const make = () => device.zeros([rows, config.keyValueHeads * config.headDim]);
    this.#keys = Array.from({ length: config.layers }, make);
    this.#values = Array.from({ length: config.layers }, make);
  }

  keys(layer: number): Tensor {
    return this.#keys[layer]!;
  }

  values(layer: number): Tensor {
    return this.#values[layer]!;
  }

  /** Stores one row of `keys` and `values` at each of `rows` (u32). */
  write(layer: number, rows: Tensor, keys: Tensor, values: Tensor): void {
    scatterRows(keys, rows, this.keys(layer));
    scatterRows(values, rows, this.values(layer));
  }

  [Symbol.dispose](): void {
    for (const tensor of [...this.#keys, ...this.#values]) tensor.dispose();
  }
}
