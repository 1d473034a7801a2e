import type { PooledBuffer } from "./buffer_pool.ts";
import type { CommandQueue } from "./command_queue.ts";
import { beginWait } from "./polling.ts";

/** Bytes of one staging buffer. */
const STAGING_BYTES = 2 ** 24;
/** Staging buffers at most. */
const STAGING_COUNT = 16;
/** Smaller uploads go through the queue, which needs no mapping. */
const SMALL_BYTES = 2 ** 16;
/** What the queue is given at a time, which bounds what Dawn stages by itself. */
const WRITE_BYTES = 2 ** 26;

const MAP_WRITE = 0x2, COPY_SRC = 0x4, MAP_WRITE_MODE = 0x2;

/**
 * Brings host bytes into GPU buffers. Large ones travel through mapped staging buffers that are used again and again, about
 * three times as fast as `writeBuffer`, which has to find new memory for each call. Staging buffers come back after their
 * commands ran; a program that never waits runs out of them, and goes on through the queue.
 */
export class Uploader {
  readonly #mapped: GPUBuffer[] = [];
  readonly #returning = new Set<Promise<void>>();
  #created = 0;

  /** @param onHardware as for {@linkcode beginWait} */
  constructor(readonly device: GPUDevice, readonly queue: CommandQueue, readonly onHardware: boolean) {}

  /** Writes `bytes` to the start of a buffer, ordered after all commands recorded so far. */
  write(target: PooledBuffer, bytes: Uint8Array<ArrayBuffer>): void {
    let start = 0;
    while (bytes.length - start > SMALL_BYTES) {
      const staging = this.#take();
      if (!staging) break;
      const part = bytes.subarray(start, start + STAGING_BYTES);
      this.#stage(staging, target, start, part);
      start += part.length;
    }
    if (start < bytes.length) this.#writeThroughQueue(target, start, bytes.subarray(start));
  }

  /** The same, waiting for staging buffers rather than going through the queue. */
  async stream(target: PooledBuffer, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let start = 0; start < bytes.length; start += STAGING_BYTES) {
      const part = bytes.subarray(start, start + STAGING_BYTES);
      this.#stage(await this.#takeWhenFree(), target, start, part);
      // At once, so that the buffer comes back while the next one is filled.
      this.queue.submit();
    }
  }

  async #takeWhenFree(): Promise<GPUBuffer> {
    for (;;) {
      const staging = this.#take();
      if (staging) return staging;
      // Those that are recorded but not submitted would never come back.
      this.queue.submit();
      if (this.#returning.size === 0) throw new Error("no staging buffer is left, nor on its way back");
      beginWait(this.onHardware);
      await Promise.race(this.#returning);
    }
  }

  #stage(staging: GPUBuffer, target: PooledBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
    new Uint8Array(staging.getMappedRange(0, bytes.length)).set(bytes);
    staging.unmap();
    this.queue.record((encoder) =>
      encoder.copyBufferToBuffer(staging, 0, target.buffer, offset, bytes.length)
    );
    this.queue.use(target);
    this.queue.afterSubmit(() => this.#mapAgain(staging));
  }

  #writeThroughQueue(target: PooledBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
    // A write is ordered before commands that are not submitted yet, so it would overtake them.
    if (this.queue.isUsing(target)) this.queue.submit();
    for (let start = 0; start < bytes.length; start += WRITE_BYTES) {
      const part = bytes.subarray(start, start + WRITE_BYTES);
      this.device.queue.writeBuffer(target.buffer, offset + start, part);
    }
  }

  #take(): GPUBuffer | undefined {
    const free = this.#mapped.pop();
    if (free || this.#created === STAGING_COUNT) return free;
    this.#created++;
    return this.device.createBuffer({
      size: STAGING_BYTES,
      usage: MAP_WRITE | COPY_SRC,
      mappedAtCreation: true,
    });
  }

  #mapAgain(staging: GPUBuffer): void {
    const returning = staging.mapAsync(MAP_WRITE_MODE).then(
      () => void this.#mapped.push(staging),
      () => {}, // the device is gone; whoever waits for it learns that
    ).finally(() => this.#returning.delete(returning));
    this.#returning.add(returning);
  }

  /** Waits for staging buffers under way, and frees all. */
  async destroy(): Promise<void> {
    await Promise.all(this.#returning);
    for (const staging of this.#mapped.splice(0)) staging.destroy();
  }
}
