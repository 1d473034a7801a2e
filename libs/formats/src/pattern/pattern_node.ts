/** Accepts a character. */
export type Predicate = (character: string) => boolean;

/** A pattern, or a part of one, as it was parsed. */
export type Node =
  | { readonly kind: "character"; readonly accepts: Predicate }
  | { readonly kind: "start" | "end" }
  | { readonly kind: "sequence"; readonly items: readonly Node[] }
  | { readonly kind: "choice"; readonly items: readonly Node[] }
  | { readonly kind: "repeat"; readonly item: Node; readonly min: number; readonly max: number };

/** A pattern outside what `PythonPattern` knows. */
export class PatternError extends Error {
  override readonly name = "PatternError";
}
