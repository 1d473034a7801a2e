/** A pattern as a tree: characters to meet, `?`, `*`, and groups of which either fits. */
type Part =
  | { readonly kind: "character"; readonly character: string }
  | { readonly kind: "one" }
  | { readonly kind: "any" }
  | { readonly kind: "either"; readonly choices: readonly (readonly Part[])[] };

/** Reads a pattern from left to right; a group that is never closed ends with the pattern. */
function parse(pattern: readonly string[]): readonly Part[] {
  let at = 0;
  const sequence = (isInGroup: boolean): Part[] => {
    const parts: Part[] = [];
    for (; at < pattern.length; at++) {
      const character = pattern[at]!;
      if (isInGroup && (character === "," || character === "}")) break;
      if (character === "{") parts.push(group());
      else if (character === "*") parts.push({ kind: "any" });
      else if (character === "?") parts.push({ kind: "one" });
      else parts.push({ kind: "character", character });
    }
    return parts;
  };
  const group = (): Part => {
    const choices: Part[][] = [];
    do {
      at++;
      choices.push(sequence(true));
    } while (pattern[at] === ",");
    return { kind: "either", choices };
  };
  return sequence(false);
}

/**
 * Where `parts` can end in `text` when they begin at any of `starts`. All ways are followed at once, so that no pattern
 * takes longer than its length times the text's; a regular expression with many stars could take forever.
 */
function ends(
  parts: readonly Part[],
  text: readonly string[],
  starts: ReadonlySet<number>,
): ReadonlySet<number> {
  return parts.reduce<ReadonlySet<number>>((places, part) => {
    if (part.kind === "either") {
      return new Set(part.choices.flatMap((choice) => [...ends(choice, text, places)]));
    }
    if (part.kind === "any") {
      const first = Math.min(...places);
      return new Set(text.keys().map((place) => place + 1).filter((place) => place > first)).union(places);
    }
    const fits = (place: number) =>
      place < text.length && (part.kind === "one" || text[place] === part.character);
    return new Set([...places].filter(fits).map((place) => place + 1));
  }, starts);
}

/**
 * Turns a module pattern into a test: `*` stands for any characters, dots included, `?` for one, `{a,b}` for either.
 * Unlike in a shell a star crosses the dots of a module's name, so that `*.q_proj` means every query projection.
 */
export function moduleGlob(pattern: string): (module: string) => boolean {
  const parts = parse([...pattern]);
  return (module) => {
    const text = [...module];
    return ends(parts, text, new Set([0])).has(text.length);
  };
}
