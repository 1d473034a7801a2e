/**
 * Turns a module pattern into a test: `*` stands for any characters, dots included, `?` for one, `{a,b}` for either.
 * Unlike in a shell a star crosses the dots of a module's name, so that `*.q_proj` means every query projection.
 */
export function moduleGlob(pattern: string): (module: string) => boolean {
  let depth = 0;
  const expression = [...pattern].map((character) => {
    if (character === "*") return ".*";
    if (character === "?") return ".";
    if (character === "{" && ++depth) return "(?:";
    if (character === "}" && depth > 0 && depth--) return ")";
    if (character === "," && depth > 0) return "|";
    return character.replace(/[\\^$.|+()[\]{}]/, "\\$&");
  }).join("");
  const regex = new RegExp(`^${expression}${")".repeat(depth)}$`, "u");
  return (module) => regex.test(module);
}
