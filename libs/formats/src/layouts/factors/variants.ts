import { FormatError } from "../../errors.ts";
import type { VariantKind } from "./suffixes.ts";
import { dropAdvice } from "../drop.ts";

interface Variant {
  readonly what: string;
  /** A way out besides dropping. */
  readonly fix?: string;
}

const EXPAND =
  "Expand it into a plain LoRA with --expand (in a recipe expand: true beside the adapter's path)";

/** What every kind of tensor is that a plain LoRA does not have. */
export const VARIANTS: Readonly<Record<VariantKind, Variant>> = {
  dora: { what: "the magnitude of DoRA, which rescales the merged weight and is not additive" },
  lora_bias: { what: "the bias of a B factor" },
  loha: { what: "a factor of LoHa, a Hadamard product", fix: EXPAND },
  lokr: { what: "a factor of LoKr, a Kronecker product", fix: EXPAND },
  diff: { what: "a full difference of weights, which has no factors" },
  norm: { what: "a difference of a norm's weights" },
  ia3: { what: "a part of IA3, which scales activations" },
  oft: { what: "a part of OFT, which rotates the base weight" },
  glora: { what: "a part of GLoRA, which depends on the base weight" },
  reshape: { what: "a new shape of the base weight" },
  scalar: { what: "a scalar of LyCORIS that was not folded into a factor" },
  bias: { what: "a trained bias" },
  full: { what: "a full tensor" },
};

/** The error of a module that is no plain LoRA, with the ways out. */
export function refuseVariant(kind: VariantKind, tensor: string, module: string, path: string): FormatError {
  const { what, fix } = VARIANTS[kind];
  const drop = `accept the loss with ${dropAdvice(kind)}`;
  return new FormatError(
    "unsupported_variant",
    `${tensor} is ${what}; ${module} is no plain LoRA`,
    fix ? `${fix}, or ${drop}.` : `Leave the adapter out, or ${drop}.`,
    `${path} ${tensor}`,
  );
}
