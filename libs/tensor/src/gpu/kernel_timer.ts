/** What one kernel cost since the device was opened. */
export interface KernelTime {
  readonly kernel: string;
  readonly dispatches: number;
  /** On the device, from the timestamps around each dispatch. */
  readonly seconds: number;
}

const QUERY_RESOLVE = 0x200, COPY_SRC = 0x4, COPY_DST = 0x8, MAP_READ = 0x1, MAP_READ_MODE = 0x1;

/**
 * Times every dispatch with timestamp queries. Each dispatch then has a compute pass of its own, which keeps dispatches from
 * overlapping: sums are those of the kernels alone, not of the run they belong to.
 */
export class KernelTimer {
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #sums = new Map<string, { dispatches: number; seconds: number }>();
  readonly #pending = new Set<Promise<void>>();
  #names: string[] = [];

  /** @param slots the most dispatches of one submission */
  constructor(readonly device: GPUDevice, slots: number) {
    this.#queries = device.createQuerySet({ type: "timestamp", count: 2 * slots });
    this.#resolved = device.createBuffer({ size: 16 * slots, usage: QUERY_RESOLVE | COPY_SRC });
  }

  /** Descriptor of the compute pass for the next dispatch, which runs `kernel`. */
  pass(kernel: string): GPUComputePassDescriptor {
    const first = 2 * this.#names.length;
    this.#names.push(kernel);
    return {
      timestampWrites: {
        querySet: this.#queries,
        beginningOfPassWriteIndex: first,
        endOfPassWriteIndex: first + 1,
      },
    };
  }

  /** Ends the recording of a submission; the returned action reads its times and is to be called once it was submitted. */
  resolve(encoder: GPUCommandEncoder): () => void {
    const names = this.#names;
    this.#names = [];
    if (names.length === 0) return () => {};
    const bytes = 16 * names.length;
    const staging = this.device.createBuffer({ size: bytes, usage: MAP_READ | COPY_DST });
    encoder.resolveQuerySet(this.#queries, 0, 2 * names.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, staging, 0, bytes);
    return () => {
      const reading = staging.mapAsync(MAP_READ_MODE).then(() => {
        const stamps = new BigUint64Array(staging.getMappedRange());
        names.forEach((name, index) => this.#add(name, Number(stamps[2 * index + 1]! - stamps[2 * index]!)));
        staging.destroy();
      }, () => {}) // the device is gone; whoever waits for it learns that
        .finally(() => this.#pending.delete(reading));
      this.#pending.add(reading);
    };
  }

  /** The sums of all work submitted so far, the costliest first. */
  async times(): Promise<KernelTime[]> {
    await Promise.all(this.#pending);
    return [...this.#sums].map(([kernel, sums]) => ({ kernel, ...sums })).sort((a, b) =>
      b.seconds - a.seconds
    );
  }

  /** Starts the sums anew. */
  reset(): void {
    this.#sums.clear();
  }

  /** Frees the queries. */
  async destroy(): Promise<void> {
    await Promise.all(this.#pending);
    this.#queries.destroy();
    this.#resolved.destroy();
  }

  #add(kernel: string, nanoseconds: number): void {
    const sums = this.#sums.get(kernel) ?? { dispatches: 0, seconds: 0 };
    sums.dispatches++;
    sums.seconds += nanoseconds / 1e9;
    this.#sums.set(kernel, sums);
  }
}
