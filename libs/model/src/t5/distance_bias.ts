import type { Device, Tensor } from "@lora-loom/tensor";
import type { DistanceBias } from "../ops/attention.ts";
import { gatherRows } from "../ops/rows.ts";
import type { T5Config } from "./config.ts";

/**
 * The bucket that T5 puts a distance into (arXiv 1910.10683 §2.1): near distances have one each, farther ones share buckets
 * that widen by a constant factor up to `maxDistance`. `distance` is the key's position less the query's; causal attention
 * never looks ahead and uses all buckets for what lies behind.
 *
 * Rounded as float32 does it: a boundary such as 16 of 8 … 128 lies exactly between two buckets.
 */
export function distanceBucket(
  distance: number,
  bidirectional: boolean,
  { distanceBuckets, maxDistance }: Pick<T5Config, "distanceBuckets" | "maxDistance">,
): number {
  const buckets = bidirectional ? Math.floor(distanceBuckets / 2) : distanceBuckets;
  const first = bidirectional && distance > 0 ? buckets : 0;
  const away = bidirectional ? Math.abs(distance) : Math.max(-distance, 0);
  const near = Math.floor(buckets / 2);
  if (away < near) return first + away;
  const logarithm = Math.fround(Math.log(Math.fround(away / near)));
  const share = Math.fround(logarithm / Math.fround(Math.log(maxDistance / near)));
  const far = near + Math.floor(Math.fround(share * (buckets - near)));
  return first + Math.min(far, buckets - 1);
}

/** One stack's biases of attention scores by distance, on a device; they grow with the longest sequence seen. */
export class DistanceBiases implements Disposable {
  #table: Tensor | undefined;
  /** Positions that the table covers. */
  #positions = 0;

  /** @param weights a bias for every bucket and head, `[distanceBuckets, heads]`; the model's */
  constructor(
    readonly device: Device,
    readonly config: T5Config,
    readonly weights: Tensor,
    readonly bidirectional: boolean,
  ) {}

  /**
   * Biases of queries at the given positions, whose keys begin at position 0. Dispose its origins; the table stays valid
   * until a longer one is asked for.
   *
   * @param longest positions of the longest sequence
   */
  at(positions: Uint32Array, longest: number): DistanceBias {
    const table = this.#upTo(longest);
    const origins = positions.map((position) => this.#positions - 1 - position);
    return { table, origins: this.device.upload(origins, [origins.length], "u32") };
  }

  /** Rows are the distances from 1 − positions to positions − 1. */
  #upTo(longest: number): Tensor {
    if (this.#table && longest <= this.#positions) return this.#table;
    this.#positions = 2 ** Math.ceil(Math.log2(Math.max(longest, 64)));
    const buckets = Uint32Array.from(
      { length: 2 * this.#positions - 1 },
      (_, row) => distanceBucket(row + 1 - this.#positions, this.bidirectional, this.config),
    );
    using ids = this.device.upload(buckets, [buckets.length], "u32");
    this.#table?.dispose();
    this.#table = gatherRows(this.weights, ids);
    return this.#table;
  }

  [Symbol.dispose](): void {
    this.#table?.dispose();
  }
}
