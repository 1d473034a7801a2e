import type { AdapterWriter } from "@lora-loom/formats";
import type { HostFactors } from "../engine/module_writer.ts";

/** Takes the modules of a merge in place of a file, for what still happens to them. */
export class CollectingWriter implements AdapterWriter {
  readonly #factors = new Map<string, HostFactors>();

  get factors(): ReadonlyMap<string, HostFactors> {
    return this.#factors;
  }

  write(module: string, a: Float32Array | Float64Array, b: Float32Array | Float64Array): Promise<void> {
    this.#factors.set(module, { a: Float32Array.from(a), b: Float32Array.from(b) });
    return Promise.resolve();
  }

  finish(): Promise<void> {
    return Promise.resolve();
  }

  abort(): Promise<void> {
    this.#factors.clear();
    return Promise.resolve();
  }
}
