/** Things that exist while someone holds them: made for the first holder, disposed when the last one lets go. */
export class Holds<Value extends Disposable> {
  readonly #held = new Map<
    string,
    { readonly made: Promise<Value>; value: Value | undefined; holders: number }
  >();

  /** What a key stands for, while it is held. */
  get(key: string): Value | undefined {
    return this.#held.get(key)?.value;
  }

  /** @param make called where nobody holds the key yet */
  async hold(key: string, make: () => Promise<Value>): Promise<Disposable> {
    const entry = this.#held.get(key) ?? { made: make(), value: undefined, holders: 0 };
    this.#held.set(key, entry);
    entry.holders++;
    const letGo = () => {
      if (--entry.holders > 0) return;
      this.#held.delete(key);
      entry.value?.[Symbol.dispose]();
    };
    try {
      entry.value = await entry.made;
    } catch (error) {
      letGo();
      throw error;
    }
    return disposableOnce(letGo);
  }

  /** Disposes what is held still. */
  clear(): void {
    for (const { value } of this.#held.values()) value?.[Symbol.dispose]();
    this.#held.clear();
  }
}

/** A disposable that does its work the first time only. */
export function disposableOnce(work: () => void): Disposable {
  let done = false;
  return {
    [Symbol.dispose]() {
      if (done) return;
      done = true;
      work();
    },
  };
}
