/** Bytes that one staging buffer carries; larger tensors take several trips. */
const CHUNK_BYTES = 2 ** 24;
/** Trips under way at a time, so that the GPU copies while the host does. */
const TRIPS = 4;

/** Reads GPU buffers back through staging buffers that are used again and again. */
export class Readback {
  readonly #free: GPUBuffer[] = [];

  constructor(
    readonly device: GPUDevice,
    readonly usage: { readonly MAP_READ: number; readonly COPY_DST: number },
    readonly mapRead: number,
  ) {}

  /** Fills `into` from the start of `source`, whose commands were all submitted. */
  async read(source: GPUBuffer, into: Uint8Array): Promise<void> {
    const trips: Promise<void>[] = [];
    for (let start = 0; start < into.length; start += CHUNK_BYTES) {
      if (trips.length >= TRIPS) await trips[trips.length - TRIPS];
      const trip = this.#trip(source, start, Math.min(CHUNK_BYTES, into.length - start), into);
      trip.catch(() => {}); // awaited below; must not count as unhandled meanwhile
      trips.push(trip);
    }
    await Promise.all(trips);
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
    if (this.#free.length > TRIPS) this.#free.shift()!.destroy();
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
