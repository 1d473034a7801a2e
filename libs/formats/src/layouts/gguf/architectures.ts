import { FormatError } from "../../errors.ts";

/** What llama.cpp makes of a family of models. */
export interface Architecture {
  /** llama.cpp's `general.architecture`. */
  readonly name: string;
  /** Rows of Q and K are reordered, so that each rotary pair lies side by side. */
  readonly permutesHeads: boolean;
  /** Modules of a layer: Hugging Face's path to llama.cpp's name. */
  readonly modules: Readonly<Record<string, string>>;
}

const SPLIT_MODULES = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

const FUSED_MODULES = {
  "self_attn.qkv_proj": "attn_qkv",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

const ARCHITECTURES: readonly Architecture[] = [
  { name: "llama", permutesHeads: true, modules: SPLIT_MODULES },
  { name: "granite", permutesHeads: true, modules: SPLIT_MODULES },
  ...["qwen2", "qwen3", "gemma", "gemma2", "gemma3"].map((name) => (
    { name, permutesHeads: false, modules: SPLIT_MODULES }
  )),
  { name: "phi3", permutesHeads: false, modules: FUSED_MODULES },
];

/** llama.cpp's architecture of a `model_type`, where it has another name. */
const ALIASES: Readonly<Record<string, string>> = {
  mistral: "llama",
  mixtral: "llama",
  gemma3_text: "gemma3",
};

/**
 * The architecture of a GGUF file, or of a model by its `model_type`.
 *
 * @throws {FormatError} `architecture_unsupported`
 */
export function architectureOf(name: string, where: string): Architecture {
  const found = ARCHITECTURES.find((architecture) => architecture.name === (ALIASES[name] ?? name));
  if (found) return found;
  const known = ARCHITECTURES.map((architecture) => architecture.name).join(", ");
  throw new FormatError(
    "architecture_unsupported",
    `the names of the architecture ${
      JSON.stringify(name)
    } in llama.cpp are not known here; known are ${known}`,
    "Write a PEFT folder (--to peft, or output.format: peft in a recipe) and convert it with llama.cpp's convert_lora_to_gguf.py.",
    where,
  );
}
