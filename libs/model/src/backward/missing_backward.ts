import type { Architecture } from "../architecture.ts";
import type { DecoderConfig } from "../config.ts";

/** What a decoder computes that cannot be gone back through yet, in words; nothing where all of it can. */
export function missingBackward({ normKind }: Architecture, config: DecoderConfig): string | undefined {
  const found: readonly (readonly [there: boolean, what: string])[] = [
    [normKind === "layer", "layer norms"],
    [config.rope === undefined, "learned positions"],
  ];
  const parts = found.filter(([there]) => there).map(([, what]) => what);
  return parts.length > 0 ? parts.join(", ") : undefined;
}
