/** Decides what a caller agreed to lose; see `OpenOptions.drop`. */
export class DropList {
  readonly #names: readonly string[];

  constructor(names: readonly string[] = []) {
    this.#names = names;
  }

  /** Whether any of these names is on the list, literally or through a `*`. */
  includes(...names: readonly string[]): boolean {
    return this.#names.some((wanted) => names.some((name) => matchesWildcard(wanted, name)));
  }
}

/** Whether `pattern`, in which `*` stands for any characters, matches the whole of `name`. */
export function matchesWildcard(pattern: string, name: string): boolean {
  const [head, ...rest] = pattern.split("*");
  if (rest.length === 0) return name === pattern;
  const tail = rest.pop()!;
  if (!name.startsWith(head!) || name.length < head!.length + tail.length || !name.endsWith(tail)) {
    return false;
  }
  let position = head!.length;
  const limit = name.length - tail.length;
  for (const part of rest) {
    const found = name.indexOf(part, position);
    if (found < 0 || found + part.length > limit) return false;
    position = found + part.length;
  }
  return true;
}

/** How a caller says that something may be lost, in the words of the command line and of recipes. */
export function dropAdvice(name: string): string {
  const word = /^[\w.-]+$/.test(name) ? name : JSON.stringify(name);
  return `--drop ${word} (in a recipe drop: [${word}] beside the adapter's path)`;
}
