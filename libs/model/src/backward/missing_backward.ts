import { type Architecture, rolesOf, sharersOf } from "../architecture.ts";
import type { DecoderConfig } from "../config.ts";

/** What a decoder computes that cannot be gone back through yet, in words; nothing where all of it can. */
export function missingBackward(architecture: Architecture, config: DecoderConfig): string | undefined {
  const { norms, normKind, linears } = architecture;
  const found: readonly (readonly [there: boolean, what: string])[] = [
    [linears.gate === undefined, "an MLP without a gate"],
    [config.activation !== "silu", `the activation ${config.activation}`],
    [
      rolesOf(architecture).some((role) => sharersOf(architecture, role).length > 1),
      "modules of several projections",
    ],
    [
      norms.attentionOut !== undefined || norms.mlpOut !== undefined,
      "norms of what modules add to the stream",
    ],
    [normKind === "layer", "layer norms"],
    [config.rope === undefined, "learned positions"],
    [config.rope?.scaling.type === "longrope", "rotary angles that change with the length"],
    [config.slidingRope !== undefined, "rotary angles of their own in sliding layers"],
    [
      config.attentionScale !== undefined || config.attentionSoftCap !== undefined,
      "scaled or bounded scores",
    ],
    [config.outputSoftCap !== undefined, "bounded logits"],
  ];
  const parts = found.filter(([there]) => there).map(([, what]) => what);
  return parts.length > 0 ? parts.join(", ") : undefined;
}
