/** A disposable with several holders: it is disposed when the last of them lets go. */
export class Shared<T extends Disposable> implements Disposable {
  #holders = 1;

  constructor(readonly value: T) {}

  /** Adds a holder, which must dispose it in its turn. */
  hold(): Shared<T> {
    this.#holders++;
    return this;
  }

  [Symbol.dispose](): void {
    if (--this.#holders === 0) this.value[Symbol.dispose]();
  }
}
