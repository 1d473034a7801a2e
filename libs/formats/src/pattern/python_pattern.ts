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
    const node = new PatternParser(source).parse();
    this.#states = new Compiler().compile(node);
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

/** A pattern outside what {@linkcode PythonPattern} knows. */
export class PatternError extends Error {
  override readonly name = "PatternError";
}

type Predicate = (character: string) => boolean;

type Node =
  | { readonly kind: "character"; readonly accepts: Predicate }
  | { readonly kind: "start" | "end" }
  | { readonly kind: "sequence"; readonly items: readonly Node[] }
  | { readonly kind: "choice"; readonly items: readonly Node[] }
  | { readonly kind: "repeat"; readonly item: Node; readonly min: number; readonly max: number };

type State =
  | { readonly kind: "character"; readonly accepts: Predicate }
  | { readonly kind: "start" | "end" | "accept" }
  | { readonly kind: "jump"; readonly targets: number[] };

const MAX_LENGTH = 2000;
const MAX_DEPTH = 50;
const MAX_STEPS = 5_000;

const CLASSES: Readonly<Record<string, Predicate>> = {
  d: (c) => /^\p{Nd}$/u.test(c),
  D: (c) => !/^\p{Nd}$/u.test(c),
  w: (c) => /^[\p{L}\p{N}_]$/u.test(c),
  W: (c) => !/^[\p{L}\p{N}_]$/u.test(c),
  s: (c) => /^\s$/u.test(c),
  S: (c) => !/^\s$/u.test(c),
};
const CONTROLS: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", f: "\f", v: "\v" };

class PatternParser {
  readonly #source: string;
  readonly #characters: readonly string[];
  #position = 0;
  #depth = 0;

  constructor(source: string) {
    this.#source = source;
    this.#characters = [...source];
    if (this.#characters.length > MAX_LENGTH) {
      throw new PatternError(`the pattern is longer than ${MAX_LENGTH} characters`);
    }
  }

  parse(): Node {
    const node = this.#choice();
    if (this.#position < this.#characters.length) throw this.#error("an unbalanced )");
    return node;
  }

  #choice(): Node {
    const items = [this.#sequence()];
    while (this.#take("|")) items.push(this.#sequence());
    return items.length === 1 ? items[0]! : { kind: "choice", items };
  }

  #sequence(): Node {
    const items: Node[] = [];
    while (this.#position < this.#characters.length && this.#peek() !== "|" && this.#peek() !== ")") {
      items.push(this.#quantified());
    }
    return { kind: "sequence", items };
  }

  #quantified(): Node {
    const item = this.#atom();
    const bounds = this.#quantifier();
    if (!bounds) return item;
    if (item.kind === "start" || item.kind === "end") throw this.#error("a repeated anchor");
    this.#take("?"); // lazy: finds the same matches
    if (this.#quantifier() || this.#peek() === "+") throw this.#error("a repeat of a repeat");
    return { kind: "repeat", item, ...bounds };
  }

  #quantifier(): { min: number; max: number } | undefined {
    if (this.#take("*")) return { min: 0, max: Infinity };
    if (this.#take("+")) return { min: 1, max: Infinity };
    if (this.#take("?")) return { min: 0, max: 1 };
    if (this.#peek() !== "{") return undefined;
    const match = /^\{(\d{0,4})(,?)(\d{0,4})\}/.exec(this.#characters.slice(this.#position).join(""));
    if (!match || match[1] + match[3]! === "") throw this.#error("an unusual {");
    this.#position += match[0].length;
    const min = Number(match[1]);
    const max = match[2] === "" ? min : match[3] === "" ? Infinity : Number(match[3]);
    if (max < min) throw this.#error("a repeat with its bounds reversed");
    return { min, max };
  }

  #atom(): Node {
    const character = this.#characters[this.#position++]!;
    switch (character) {
      case "(":
        return this.#group();
      case "[":
        return { kind: "character", accepts: this.#class() };
      case "\\":
        return { kind: "character", accepts: this.#escape() };
      case ".":
        return { kind: "character", accepts: (c) => c !== "\n" };
      case "^":
        return { kind: "start" };
      case "$":
        return { kind: "end" };
      case "*":
      case "+":
      case "?":
        throw this.#error("a repeat of nothing");
      case "{":
        throw this.#error("an unusual {");
      default:
        return { kind: "character", accepts: (c) => c === character };
    }
  }

  #group(): Node {
    if (++this.#depth > MAX_DEPTH) throw this.#error(`groups more than ${MAX_DEPTH} deep`);
    if (this.#take("?")) this.#skipGroupName();
    const node = this.#choice();
    if (!this.#take(")")) throw this.#error("an unclosed group");
    this.#depth--;
    return node;
  }

  #skipGroupName(): void {
    if (this.#take(":")) return;
    const match = /^P<\w+>/.exec(this.#characters.slice(this.#position).join(""));
    if (!match) throw this.#error("a group with an extension such as look-around or flags");
    this.#position += match[0].length;
  }

  #class(): Predicate {
    const isNegated = this.#take("^");
    const parts: Predicate[] = [];
    let isFirst = true;
    while (isFirst || this.#peek() !== "]") {
      if (this.#peek() === undefined) throw this.#error("an unclosed character class");
      parts.push(this.#classPart());
      isFirst = false;
    }
    this.#position++;
    return (c) => parts.some((accepts) => accepts(c)) !== isNegated;
  }

  #classPart(): Predicate {
    const from = this.#classCharacter();
    const isRange = this.#peek() === "-" && this.#characters[this.#position + 1] !== "]";
    if (typeof from !== "string") {
      if (isRange) throw this.#error("a range from a class");
      return from;
    }
    if (!isRange) return (c) => c === from;
    this.#position++;
    const to = this.#classCharacter();
    if (typeof to !== "string" || codePoint(to) < codePoint(from)) {
      throw this.#error("a range with its bounds reversed");
    }
    return (c) => codePoint(from) <= codePoint(c) && codePoint(c) <= codePoint(to);
  }

  #classCharacter(): string | Predicate {
    const character = this.#characters[this.#position++];
    if (character === undefined) throw this.#error("an unclosed character class");
    return character === "\\" ? this.#escaped() : character;
  }

  #escape(): Predicate {
    const escaped = this.#escaped();
    return typeof escaped === "string" ? (c) => c === escaped : escaped;
  }

  #escaped(): string | Predicate {
    const character = this.#characters[this.#position++];
    if (character === undefined) throw this.#error("a \\ at the end");
    const known = CLASSES[character] ?? CONTROLS[character];
    if (known !== undefined) return known;
    if (/[A-Za-z0-9]/.test(character)) throw this.#error(`the escape \\${character}`);
    return character;
  }

  #peek(): string | undefined {
    return this.#characters[this.#position];
  }

  #take(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#position++;
    return true;
  }

  #error(what: string): PatternError {
    return new PatternError(`the pattern ${JSON.stringify(this.#source)} has ${what}`);
  }
}

function codePoint(character: string): number {
  return character.codePointAt(0)!;
}

/** Thompson's construction: each state leads to the next one, jumps lead elsewhere. */
class Compiler {
  readonly #states: State[] = [];
  #steps = 0;

  compile(node: Node): readonly State[] {
    this.#emit(node);
    this.#add({ kind: "accept" });
    return this.#states;
  }

  #emit(node: Node): void {
    // Counted apart from the states: a repeated empty group makes none.
    if (++this.#steps > MAX_STEPS) throw new PatternError("the pattern repeats too much");
    switch (node.kind) {
      case "sequence":
        node.items.forEach((item) => this.#emit(item));
        break;
      case "choice":
        this.#emitChoice(node.items);
        break;
      case "repeat":
        this.#emitRepeat(node.item, node.min, node.max);
        break;
      default:
        this.#add(node);
    }
  }

  #emitChoice(items: readonly Node[]): void {
    const entries: number[] = [];
    const exits: number[][] = [];
    this.#jump(entries);
    for (const item of items) {
      entries.push(this.#states.length);
      this.#emit(item);
      exits.push(this.#jump([]));
    }
    exits.forEach((targets) => targets.push(this.#states.length));
  }

  #emitRepeat(item: Node, min: number, max: number): void {
    for (let i = 0; i < min; i++) this.#emit(item);
    if (max === Infinity) return this.#emitStar(item);
    const skips: number[][] = [];
    for (let i = min; i < max; i++) {
      skips.push(this.#jump([this.#states.length + 1]));
      this.#emit(item);
    }
    skips.forEach((targets) => targets.push(this.#states.length));
  }

  #emitStar(item: Node): void {
    const loop = this.#states.length;
    const targets = this.#jump([loop + 1]);
    this.#emit(item);
    this.#jump([loop]);
    targets.push(this.#states.length);
  }

  #jump(targets: number[]): number[] {
    this.#add({ kind: "jump", targets });
    return targets;
  }

  #add(state: State): void {
    this.#states.push(state);
  }
}
