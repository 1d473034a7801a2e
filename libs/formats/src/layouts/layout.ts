import type { Adapter } from "../adapter.ts";
import type { AdapterSource } from "./source.ts";

export interface OpenOptions {
  /**
   * What may be left out of the adapter, with a warning instead of an error: names of configuration keys
   * (`modules_to_save`, `bias`, `lora_bias`, …) or names of tensors or modules, `*` standing for any characters.
   */
  readonly drop?: readonly string[];
}

/** One way of storing an adapter. A new format is one file with a `Layout`, and one line in the registry. */
export interface Layout {
  /** The name in recipes and reports: `peft`. */
  readonly id: string;
  /** The name in messages: `PEFT`. */
  readonly title: string;
  /** Weight files it uses in a folder, without `.safetensors`. */
  readonly weightFiles: readonly string[];
  /** The sign by which this layout claims the source, worded for a message; undefined where it has none. */
  detect(source: AdapterSource): string | undefined;
  /** Reads a source it claims. On success the adapter owns `source.weights`. */
  read(source: AdapterSource, options: OpenOptions): Promise<Adapter>;
}
