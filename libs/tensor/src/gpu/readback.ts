/** Bytes that one staging buffer carries; larger tensors take several trips. */
const CHUNK_BYTES = 2 ** 24;

/** Reads GPU buffers back through staging buffers that are used again and again. */
export class Readback {
  readonly #free: GPUBuffer[] = [];

  constructor(
    readonly device: GPUDevice,
    readonly usage: { readonly MAP_READ: number; readonly COPY_DST: number },
    readonly mapRead: number,
  ) {}

  /** The first `bytes` of `source`, whose commands were all submitted. */
  async read(source: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
    const result = new Uint8Array(bytes);
    const starts = Array.from({ length: Math.ceil(bytes / CHUNK_BYTES) }, (_, index) => index * CHUNK_BYTES);
    // One trip is on its way while the one before is copied out.
    let pending: Promise<void> = Promise.resolve();
    for (const start of starts) {
      const trip = this.#trip(source, start, Math.min(CHUNK_BYTES, bytes - start), result);
      trip.catch(() => {}); // awaited below; must not count as unhandled meanwhile
      await pending;
      pending = trip;
    }
    await pending;
    return result.buffer;
  }

  async #trip(source: GPUBuffer, start: number, bytes: number, into: Uint8Array): Promise<void> {
    const staging = this.#take(bytes);
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, start, staging, 0, bytes);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(this.mapRead, 0, bytes);
    into.set(new Uint8Array(staging.getMappedRange(0, bytes)), start);
    staging.unmap();
    this.#free.push(staging);
    this.#free.sort((a, b) => a.size - b.size);
    if (this.#free.length > 2) this.#free.shift()!.destroy();
  }

  #take(bytes: number): GPUBuffer {
    const index = this.#free.findIndex((buffer) => buffer.size >= bytes);
    if (index >= 0) return this.#free.splice(index, 1)[0]!;
    // Small downloads are frequent, so the smallest staging buffer is generous.
    const size = Math.min(CHUNK_BYTES, Math.max(2 ** 16, 2 ** Math.ceil(Math.log2(bytes))));
    return this.device.createBuffer({ size, usage: this.usage.MAP_READ | this.usage.COPY_DST });
  }

  /** Frees the staging buffers. */
  destroy(): void {
    for (const buffer of this.#free.splice(0)) buffer.destroy();
  }
}
