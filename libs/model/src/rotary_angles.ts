import type { Device, Tensor } from "@lora-loom/tensor";
import { type RopeConfig, rotaryFrequencies, rotaryTable } from "./rope.ts";

const FIRST_SIZE = 256;

/** The table of rotary angles on a device, as long as the longest sequence seen has needed. */
export class RotaryAngles implements Disposable {
  readonly #frequencies: Float64Array;
  #table: Tensor | undefined;

  constructor(readonly device: Device, readonly rope: RopeConfig, readonly headDim: number) {
    this.#frequencies = rotaryFrequencies(rope, headDim);
  }

  /** `[positions, headDim]`, for at least as many positions as {@linkcode upTo} was told. */
  get table(): Tensor {
    return this.#table ?? this.upTo(FIRST_SIZE);
  }

  /** Grows the table, by doubling, to this many positions. */
  upTo(positions: number): Tensor {
    if (this.#table && this.#table.shape[0]! >= positions) return this.#table;
    const size = 2 ** Math.ceil(Math.log2(Math.max(positions, FIRST_SIZE)));
    this.#table?.dispose();
    const { scaling } = this.rope;
    const factor = scaling.type === "longrope" ? scaling.attentionFactor : 1;
    this.#table = this.device.upload(rotaryTable(this.#frequencies, size, factor), [size, this.headDim]);
    return this.#table;
  }

  [Symbol.dispose](): void {
    this.#table?.dispose();
  }
}
