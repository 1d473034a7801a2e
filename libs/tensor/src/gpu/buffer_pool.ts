import type { DeviceClass } from "../device.ts";
import { outOfMemory } from "./failures.ts";

/** A GPU buffer on loan from a {@linkcode BufferPool}. */
export interface PooledBuffer {
  /** Tells buffers apart, for as long as the process runs. */
  readonly id: number;
  readonly buffer: GPUBuffer;
  /** Its size class in bytes, at least what was asked for. */
  readonly bytes: number;
  /** The submission that last used it; the pool's owner keeps this. */
  lastUse: number;
}

/** Smallest buffer: also the largest alignment that a binding offset can need. */
const SMALLEST = 256;

let nextId = 0;

/** Rounds a size up so that at most an eighth is wasted and buffers are likely to be used again. */
export function sizeClass(bytes: number): number {
  const step = Math.max(SMALLEST, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(SMALLEST, Math.ceil(bytes / step) * step);
}

/** What free buffers may hold beside buffers in use: on software drivers, which share the host's memory, and on GPUs. */
const FREE_BYTES_OF_SOFTWARE = 2 ** 28;
const FREE_BYTES_OF_GPU = 4 * 2 ** 30;

/**
 * How much memory free buffers may hold. On a GPU so much that all buffers together stay within the peak and some more: making buffers
 * of hundreds of megabytes anew for every layer of a model takes the driver a quarter of the time of a merge.
 */
export function mostFreeBytes(deviceClass: DeviceClass): (usedBytes: number, peakBytes: number) => number {
  if (deviceClass === "software") return () => FREE_BYTES_OF_SOFTWARE;
  return (usedBytes, peakBytes) => FREE_BYTES_OF_GPU + peakBytes - usedBytes;
}

/**
 * Hands out GPU buffers and takes them back for later use, because garbage collection does not see GPU memory. Work is
 * queued in order, so a returned buffer may be handed out at once: later commands run after those that still read it.
 */
export class BufferPool {
  /**
   * By size class, the oldest last, which is the next to go out. So a loop gets the same buffers in every turn, whatever order it gives
   * them back in, and what was made for them (bind groups) serves again.
   */
  readonly #free = new Map<number, PooledBuffer[]>();
  #freeBytes = 0;
  #usedBytes = 0;
  #peakBytes = 0;

  /**
   * @param create makes a buffer of a size class
   * @param destroy gives a buffer back to the driver, once no queued work uses it
   * @param budgetBytes the most that buffers in use and free ones may take together; `Infinity` for no limit
   * @param mostFree the most bytes that free buffers may take, given how many are on loan and were at most
   */
  constructor(
    readonly create: (bytes: number) => GPUBuffer,
    readonly destroy: (buffer: PooledBuffer) => void,
    readonly budgetBytes: number,
    readonly mostFree: (usedBytes: number, peakBytes: number) => number,
  ) {}

  /** Bytes of buffers on loan. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Most bytes ever on loan. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Bytes of buffers that wait for their next use. */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** @throws {TensorError} `out_of_memory` when the budget does not allow it */
  take(bytes: number): PooledBuffer {
    const size = sizeClass(bytes);
    if (this.#usedBytes + size > this.budgetBytes) {
      throw outOfMemory(
        `a tensor of ${bytes} bytes does not fit: ${this.#usedBytes} of the budget of ${this.budgetBytes} bytes are in use`,
      );
    }
    const reused = this.#free.get(size)?.pop();
    if (reused) this.#freeBytes -= size;
    else this.trim(this.budgetBytes - this.#usedBytes - size);
    this.#usedBytes += size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#usedBytes);
    return reused ?? { id: nextId++, buffer: this.create(size), bytes: size, lastUse: -1 };
  }

  /** Takes a buffer back. */
  give(buffer: PooledBuffer): void {
    this.#usedBytes -= buffer.bytes;
    this.#freeBytes += buffer.bytes;
    const sameSize = this.#free.get(buffer.bytes) ?? [];
    this.#free.set(buffer.bytes, sameSize);
    const place = sameSize.findLastIndex(({ id }) => id > buffer.id) + 1;
    sameSize.splice(place, 0, buffer);
    this.trim(this.mostFree(this.#usedBytes, this.#peakBytes));
  }

  /** Destroys free buffers, the largest first, until they take at most `bytes`. */
  trim(bytes: number): void {
    if (this.#freeBytes <= bytes) return;
    const sizes = [...this.#free.keys()].sort((a, b) => b - a);
    for (const size of sizes) {
      const buffers = this.#free.get(size)!;
      while (this.#freeBytes > bytes) {
        const buffer = buffers.shift();
        if (!buffer) break;
        this.#freeBytes -= size;
        this.destroy(buffer);
      }
      if (buffers.length === 0) this.#free.delete(size);
    }
  }
}
