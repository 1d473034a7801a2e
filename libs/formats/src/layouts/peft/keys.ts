/** What the name of a tensor in a PEFT file says. */
export type PeftKey =
  | {
    readonly kind: "factor";
    readonly module: string;
    readonly factor: "A" | "B";
    /** The module is an embedding, whose factors PEFT keeps the other way round. */
    readonly isEmbedding: boolean;
    readonly adapter: string | undefined;
  }
  | { readonly kind: "extra"; readonly module: string; readonly extra: ExtraKind };

/** Tensors beside the factors. */
export type ExtraKind =
  | "dora"
  | "lora_bias"
  | "bias"
  | "token_delta"
  | "adapter_parameter"
  | "full";

export const PREFIX = "base_model.model.";

/** The key without its prefix, and how often the prefix stood there; undefined where it does not begin with it. */
export function withoutPrefix(key: string): { path: string; repeats: number } | undefined {
  let repeats = 0;
  while (key.startsWith(PREFIX, repeats * PREFIX.length)) repeats++;
  return repeats === 0 ? undefined : { path: key.slice(repeats * PREFIX.length), repeats };
}

/** Reads a key whose prefix was removed. */
export function readKey(path: string): PeftKey {
  const parts = path.split(".");
  const parameter = parts.findLastIndex((part) => part.startsWith("lora_"));
  if (parameter > 0) return readLoraKey(parts.slice(0, parameter).join("."), parts.slice(parameter));
  const wrapper = parts.at(-2) === "base_layer" || parts.at(-2) === "token_adapter" ? 1 : 0;
  return { kind: "extra", module: parts.slice(0, -1 - wrapper).join("."), extra: kindOfTensor(parts.at(-1)) };
}

function kindOfTensor(last: string | undefined): ExtraKind {
  if (last === "trainable_tokens_delta") return "token_delta";
  return last === "bias" ? "bias" : "full";
}

function readLoraKey(module: string, parameter: readonly string[]): PeftKey {
  const [name, ...rest] = parameter;
  const factor = name!.endsWith("_A") ? "A" : "B";
  // Old exports keep the adapter's name: lora_A.default.weight, lora_embedding_A.default.
  if ((name === "lora_A" || name === "lora_B") && rest.at(-1) === "weight" && rest.length <= 2) {
    return { kind: "factor", module, factor, isEmbedding: false, adapter: rest.at(-2) };
  }
  if ((name === "lora_embedding_A" || name === "lora_embedding_B") && rest.length <= 1) {
    return { kind: "factor", module, factor, isEmbedding: true, adapter: rest[0] };
  }
  return { kind: "extra", module, extra: extraOf(name!, rest.at(-1)) };
}

function extraOf(name: string, last: string | undefined): ExtraKind {
  if (name === "lora_magnitude_vector") return "dora";
  return name === "lora_B" && last === "bias" ? "lora_bias" : "adapter_parameter";
}
