/** What the name of a tensor in a PEFT file says. */
export type PeftKey =
  | {
    readonly kind: "factor";
    readonly module: string;
    readonly factor: "A" | "B";
    readonly adapter: string | undefined;
  }
  | { readonly kind: "extra"; readonly module: string; readonly extra: ExtraKind };

export type ExtraKind = "embedding" | "dora" | "lora_bias" | "bias" | "adapter_parameter" | "full";

export const PREFIX = "base_model.model.";

const FACTOR = /^(?<module>.+)\.lora_(?<factor>[AB])(?:\.(?<adapter>[^.]+))?\.weight$/;

/** Endings of tensors beside the factors, the more special first. */
const EXTRAS: readonly (readonly [RegExp, ExtraKind])[] = [
  [/\.lora_embedding_[AB](\.[^.]+)?$/, "embedding"],
  [/\.lora_magnitude_vector(\.[^.]+)*$/, "dora"],
  [/\.lora_B(\.[^.]+)?\.bias$/, "lora_bias"],
  [/\.lora_[^.]+(\.[^.]+)*$/, "adapter_parameter"],
  [/(\.base_layer)?\.bias$/, "bias"],
  [/(\.base_layer)?\.[^.]+$/, "full"],
];

/** The key without its prefix, and how often the prefix stood there; undefined where it does not begin with it. */
export function withoutPrefix(key: string): { path: string; repeats: number } | undefined {
  let path = key;
  let repeats = 0;
  for (; path.startsWith(PREFIX); repeats++) path = path.slice(PREFIX.length);
  return repeats === 0 ? undefined : { path, repeats };
}

/** Reads a key whose prefix was removed. */
export function readKey(path: string): PeftKey {
  const match = FACTOR.exec(path);
  if (match) {
    const { module, factor, adapter } = match.groups!;
    return { kind: "factor", module: module!, factor: factor as "A" | "B", adapter };
  }
  for (const [ending, extra] of EXTRAS) {
    if (ending.test(path)) return { kind: "extra", module: path.replace(ending, ""), extra };
  }
  return { kind: "extra", module: path, extra: "full" };
}
