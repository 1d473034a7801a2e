import type { Adapter, AdapterSpec, AdapterWriter } from "../adapter.ts";
import type { BaseModel } from "../base/base_model.ts";
import type { JsonObject } from "../json/parse.ts";
import type { AdapterSource } from "./source.ts";

export interface OpenOptions {
  /**
   * What may be left out of the adapter, with a warning instead of an error: names of configuration keys
   * (`modules_to_save`, `bias`, `lora_bias`, …), of kinds (`dora`, `loha`, …) or of tensors or modules, `*` standing
   * for any characters.
   */
  readonly drop?: readonly string[] | undefined;
  /** Expand modules of LoHa and LoKr into plain LoRA, which is exact and raises their rank, instead of refusing them. */
  readonly expand?: boolean | undefined;
  /** Facts about the base model, for layouts that leave them out. */
  readonly base?: BaseModel | undefined;
}

/** One way of storing an adapter. A new format is one file with a `Layout`, and one line in the registry. */
export interface Layout {
  /** The name in recipes and reports: `peft`. */
  readonly id: string;
  /** The name in messages: `PEFT`. */
  readonly title: string;
  readonly container: "safetensors" | "gguf";
  /** Weight files it uses in a folder, without `.safetensors`. */
  readonly weightFiles: readonly string[];
  /** Whether a tensor's name is of this layout and of none before it in the registry. */
  ownsKey(key: string): boolean;
  /** Whether a tensor's name may be of this layout; asked only where no layout owns any of the names. */
  mayOwnKey?(key: string): boolean;
  /** What in `adapter_config.json` is a sign of this layout, worded for a message. */
  configSign?(config: JsonObject): string | undefined;
  /** Reads a source it claims. On success the adapter owns `source.weights`. */
  read(source: AdapterSource, options: OpenOptions): Promise<Adapter>;
  /** Absent where a layout is only read. */
  readonly writing?: LayoutWriting;
}

/** How a layout is written. */
export interface LayoutWriting {
  /** The weight file's name in a folder. */
  readonly weightFile: string;
  /** Whether the weight file is all there is, so that the target may be a single file. */
  readonly isSingleFile: boolean;
  /** @param weights the weight file to create; other files of the layout lie beside it */
  create(weights: string, spec: AdapterSpec): Promise<AdapterWriter>;
}
