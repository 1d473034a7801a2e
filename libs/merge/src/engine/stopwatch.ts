/** Adds up the wall-clock time of named parts of a run. */
export class Stopwatch<Part extends string> {
  readonly #start = performance.now();
  readonly #parts = new Map<Part, number>();

  /** Runs `body` and counts its time as part of `part`. */
  async time<T>(part: Part, body: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await body();
    } finally {
      this.#parts.set(part, this.seconds(part) * 1000 + performance.now() - start);
    }
  }

  seconds(part: Part): number {
    return (this.#parts.get(part) ?? 0) / 1000;
  }

  get total(): number {
    return (performance.now() - this.#start) / 1000;
  }
}
