import type { Device, Tensor } from "@lora-loom/tensor";
import { type RopeConfig, rotaryFrequencies, rotaryTable } from "./rope.ts";

const FIRST_SIZE = 256;

/**
 * The table of rotary angles on a device, as long as the longest sequence seen has needed. Where long sequences have frequencies of
 * their own, their angles follow those of short ones.
 */
export class RotaryAngles implements Disposable {
  #table: Tensor | undefined;
  /** Positions that the table covers. */
  #positions = 0;

  constructor(readonly device: Device, readonly rope: RopeConfig, readonly headDim: number) {}

  /** `[rows, headDim]`, for at least as many positions as {@linkcode upTo} was told. */
  get table(): Tensor {
    return this.#table ?? this.upTo(FIRST_SIZE);
  }

  /** The table's row of position 0, in a sequence of so many tokens. */
  firstRow(length: number): number {
    const { scaling } = this.rope;
    return scaling.type === "longrope" && length > scaling.originalLength ? this.#positions : 0;
  }

  /** Grows the table, by doubling, to this many positions. */
  upTo(positions: number): Tensor {
    if (this.#table && this.#positions >= positions) return this.#table;
    this.#positions = 2 ** Math.ceil(Math.log2(Math.max(positions, FIRST_SIZE)));
    this.#table?.dispose();
    const kinds = this.rope.scaling.type === "longrope" ? [false, true] : [false];
    const size = this.#positions * this.headDim;
    const values = new Float64Array(kinds.length * size);
    kinds.forEach((long, index) => values.set(this.#angles(long), index * size));
    this.#table = this.device.upload(values, [kinds.length * this.#positions, this.headDim]);
    return this.#table;
  }

  [Symbol.dispose](): void {
    this.#table?.dispose();
  }

  #angles(long: boolean): Float64Array {
    const { scaling } = this.rope;
    const factor = scaling.type === "longrope" ? scaling.attentionFactor : 1;
    return rotaryTable(rotaryFrequencies(this.rope, this.headDim, long), this.#positions, factor);
  }
}
