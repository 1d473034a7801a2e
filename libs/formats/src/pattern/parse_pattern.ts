import { type Node, PatternError, type Predicate } from "./pattern_node.ts";

const MAX_LENGTH = 2000;
const MAX_DEPTH = 50;

const CLASSES: Readonly<Record<string, Predicate>> = {
  d: (c) => /^\p{Nd}$/u.test(c),
  D: (c) => !/^\p{Nd}$/u.test(c),
  w: (c) => /^[\p{L}\p{N}_]$/u.test(c),
  W: (c) => !/^[\p{L}\p{N}_]$/u.test(c),
  s: (c) => /^\s$/u.test(c),
  S: (c) => !/^\s$/u.test(c),
};
const CONTROLS: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", f: "\f", v: "\v" };

/**
 * Parses a pattern by recursive descent.
 *
 * @throws {PatternError} for anything that is not known, is not right, or is too long or too deep
 */
export function parsePattern(source: string): Node {
  return new PatternParser(source).parse();
}

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
