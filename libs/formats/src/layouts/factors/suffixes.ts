/** The part a tensor plays in its module. */
export type TensorRole = "a" | "b" | "mid" | "alpha" | VariantKind;

/** Kinds of tensors that are no factor of a plain LoRA. */
export type VariantKind =
  | "dora"
  | "lora_bias"
  | "loha"
  | "lokr"
  | "diff"
  | "norm"
  | "ia3"
  | "oft"
  | "glora"
  | "reshape"
  | "scalar"
  | "bias"
  | "full";

/** What a tensor's name says: `<module><ending>`. */
export interface TensorName {
  readonly module: string;
  readonly role: TensorRole;
  /** The ending without its leading dot or underscore, such as `lora_down.weight`. */
  readonly ending: string;
}

const ENDINGS: readonly (readonly [role: TensorRole, endings: readonly string[]])[] = [
  ["a", [
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora.down.weight",
    ".lora_linear_layer.down.weight",
    "_lora.down.weight",
    ".lora_A",
  ]],
  ["b", [
    ".lora_up.weight",
    ".lora_B.weight",
    ".lora.up.weight",
    ".lora_linear_layer.up.weight",
    "_lora.up.weight",
    ".lora_B",
  ]],
  ["mid", [".lora_mid.weight"]],
  ["alpha", [".lora_linear_layer.alpha", ".lora.alpha", "_lora.alpha", ".alpha"]],
  ["dora", [".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight"]],
  ["lora_bias", [".lora_B.bias", ".lora_up.bias"]],
  ["loha", [
    ...[".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b"],
    ...[".hada_t1", ".hada_t2"],
  ]],
  ["lokr", [
    ...[".lokr_w1", ".lokr_w1_a", ".lokr_w1_b"],
    ...[".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2"],
  ]],
  ["diff", [".diff", ".diff_b", ".set_weight"]],
  ["norm", [".w_norm", ".b_norm"]],
  ["ia3", [".on_input"]],
  ["oft", [".oft_blocks", ".oft_diag", ".rescale", ".oft_R.weight"]],
  ["glora", [
    ".a1.weight",
    ".a2.weight",
    ".b1.weight",
    ".b2.weight",
    ".bm.weight",
    ".a1",
    ".a2",
    ".b1",
    ".b2",
    ".bm",
  ]],
  ["reshape", [".reshape_weight"]],
  ["scalar", [".scalar"]],
  ["bias", [".bias"]],
];

const LONGEST_FIRST = ENDINGS
  .flatMap(([role, endings]) => endings.map((ending) => ({ role, ending })))
  .sort((a, b) => b.ending.length - a.ending.length);

const WEIGHT = ".weight";
/** kohya's prefixes speak of LoRA themselves. */
const isKohya = (name: string) => !name.slice(name.indexOf(".")).includes("lora");

/** Old exports keep the adapter's name: `lora_A.default.weight`. */
const NAMED_ADAPTER = /\.lora_([AB])\.[^.]+\.weight$/;

/** Reads the ending of a tensor's name; undefined where it is of no adapter that is known. */
export function readTensorName(name: string): TensorName | undefined {
  const found = LONGEST_FIRST.find(({ ending }) => name.endsWith(ending) && name.length > ending.length);
  if (found) {
    const { role, ending } = found;
    return { module: name.slice(0, -ending.length), role, ending: ending.slice(1) };
  }
  const named = NAMED_ADAPTER.exec(name);
  if (named) {
    const role = named[1] === "A" ? "a" : "b";
    return { module: name.slice(0, named.index), role, ending: named[0].slice(1) };
  }
  // A name that speaks of LoRA in a way that is not known is no full tensor.
  if (!name.endsWith(WEIGHT) || name.includes("lora") && !isKohya(name)) return undefined;
  return { module: name.slice(0, -WEIGHT.length), role: "full", ending: "weight" };
}
