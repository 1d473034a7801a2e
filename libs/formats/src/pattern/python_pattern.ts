import { compilePattern, type State } from "./compile_pattern.ts";
import { parsePattern } from "./parse_pattern.ts";

/**
 * Matches names against the part of Python's regular expressions that PEFT configurations use. An own matcher, because
 * the patterns come with files of strangers: this one simulates all paths at once and takes time proportional to
 * pattern × name, where a backtracking engine can be made to run for ever.
 *
 * Known: literals, `.`, classes, `\d \w \s` and their opposites, groups, `|`, greedy and lazy `* + ? {m,n}`, `^`, `$`.
 * Anything else (look-around, back references, flags, possessive quantifiers) throws {@linkcode PatternError}.
 */
export class PythonPattern {
  readonly #states: readonly State[];

  /** @throws {PatternError} */
  constructor(source: string) {
    this.#states = compilePattern(parsePattern(source));
  }

  /** Whether the pattern matches the whole of `text`, as Python's `re.fullmatch`. */
  matches(text: string): boolean {
    const characters = [...text];
    let current = this.#reach([0], 0, characters.length);
    for (let i = 0; i < characters.length && current.size > 0; i++) {
      const next: number[] = [];
      for (const index of current) {
        const state = this.#states[index]!;
        if (state.kind === "character" && state.accepts(characters[i]!)) next.push(index + 1);
      }
      current = this.#reach(next, i + 1, characters.length);
    }
    return current.has(this.#states.length - 1);
  }

  /** All states reachable without reading a character. */
  #reach(from: number[], position: number, length: number): Set<number> {
    const reached = new Set<number>();
    const pending = from;
    while (pending.length > 0) {
      const index = pending.pop()!;
      if (reached.has(index)) continue;
      reached.add(index);
      const state = this.#states[index]!;
      if (state.kind === "jump") pending.push(...state.targets);
      else if (state.kind === "start" && position === 0) pending.push(index + 1);
      else if (state.kind === "end" && position === length) pending.push(index + 1);
    }
    return reached;
  }
}
