/** A JSON object in the order of its text: a plain object would move keys such as `"10"` to the front. */
export type JsonObject = Map<string, JsonValue>;
export type JsonValue = string | number | boolean | null | JsonValue[] | JsonObject;

/** What a text may ask of the parser; anything beyond is refused while reading, before it costs memory. */
export interface JsonLimits {
  /** Nesting of arrays and objects. */
  readonly maxDepth: number;
  /** Members of the outermost object or array. */
  readonly maxMembers: number;
  /** Members of an array inside. */
  readonly maxArrayLength: number;
  /** Numbers must be non-negative whole numbers, as in a safetensors header. */
  readonly naturalNumbers: boolean;
}

export type JsonProblem =
  | "syntax"
  | "duplicate_key"
  | "unsafe_integer"
  | "invalid_number"
  | "too_deep"
  | "too_many_members"
  | "array_too_long";

/** Why a text was refused; `path` leads to the value, from the outermost key inwards. */
export class JsonError extends Error {
  override readonly name = "JsonError";
  readonly problem: JsonProblem;
  readonly path: readonly string[];

  constructor(problem: JsonProblem, message: string, path: readonly string[]) {
    super(message);
    this.problem = problem;
    this.path = path;
  }
}

const NO_LIMITS: JsonLimits = {
  maxDepth: 64,
  maxMembers: Infinity,
  maxArrayLength: Infinity,
  naturalNumbers: false,
};

/**
 * Parses JSON strictly (RFC 8259). Unlike `JSON.parse` it refuses duplicate keys (which `JSON.parse` silently drops),
 * integers beyond 2⁵³ (which lose digits) and lone surrogates, and it keeps the order of all keys.
 *
 * @throws {JsonError}
 */
export function parseJson(text: string, limits: Partial<JsonLimits> = {}): JsonValue {
  return new Parser(text, { ...NO_LIMITS, ...limits }).parse();
}

/** The same value with plain objects for maps. */
export function toPlain(value: JsonValue): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, toPlain(item)]));
  return Array.isArray(value) ? value.map(toPlain) : value;
}

const WHITESPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
// deno-lint-ignore no-control-regex
const NEEDS_DECODING = /[\\\u0000-\u001f]/;
const LITERALS: readonly (readonly [string, boolean | null])[] = [["true", true], ["false", false], [
  "null",
  null,
]];

class Parser {
  readonly #text: string;
  readonly #limits: JsonLimits;
  readonly #path: string[] = [];
  #position = 0;
  #depth = 0;

  constructor(text: string, limits: JsonLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  parse(): JsonValue {
    this.#skipWhitespace();
    const value = this.#value();
    this.#skipWhitespace();
    if (this.#position < this.#text.length) throw this.#unexpected("the end of the text");
    return value;
  }

  #value(): JsonValue {
    switch (this.#text[this.#position]) {
      case "{":
        return this.#nested(() => this.#object());
      case "[":
        return this.#nested(() => this.#array());
      case '"':
        return this.#string();
      default:
        return this.#literalOrNumber();
    }
  }

  #nested<T>(read: () => T): T {
    if (++this.#depth > this.#limits.maxDepth) {
      throw this.#error("too_deep", `values are nested more than ${this.#limits.maxDepth} deep`);
    }
    const value = read();
    this.#depth--;
    return value;
  }

  #object(): JsonObject {
    const object: JsonObject = new Map();
    this.#members("}", () => {
      if (this.#text[this.#position] !== '"') throw this.#unexpected("a key in double quotes");
      const key = this.#string();
      this.#path.push(key);
      if (object.has(key)) {
        throw this.#error("duplicate_key", `the key ${JSON.stringify(key)} stands there twice`);
      }
      this.#skipWhitespace();
      this.#expect(":");
      this.#skipWhitespace();
      object.set(key, this.#value());
      this.#path.pop();
      return object.size;
    });
    return object;
  }

  #array(): JsonValue[] {
    const array: JsonValue[] = [];
    const isOutermost = this.#depth === 1;
    this.#members("]", () => {
      const length = array.push(this.#value());
      if (!isOutermost && length > this.#limits.maxArrayLength) {
        throw this.#error("array_too_long", `an array has more than ${this.#limits.maxArrayLength} members`);
      }
      return length;
    });
    return array;
  }

  /** Reads members up to `close`; `readMember` returns how many there are by then. */
  #members(close: string, readMember: () => number): void {
    const isOutermost = this.#depth === 1;
    this.#position++;
    this.#skipWhitespace();
    if (this.#text[this.#position] === close) {
      this.#position++;
      return;
    }
    while (true) {
      const count = readMember();
      if (isOutermost && count > this.#limits.maxMembers) {
        throw this.#error("too_many_members", `there are more than ${this.#limits.maxMembers} members`);
      }
      this.#skipWhitespace();
      if (this.#text[this.#position] === close) break;
      this.#expect(",");
      this.#skipWhitespace();
    }
    this.#position++;
  }

  #string(): string {
    const start = this.#position;
    const end = this.#closingQuote(start + 1);
    this.#position = end + 1;
    const plain = this.#text.slice(start + 1, end);
    const value = NEEDS_DECODING.test(plain) ? this.#decode(start, end + 1) : plain;
    if (!value.isWellFormed()) throw this.#error("syntax", "a string holds half of a surrogate pair");
    return value;
  }

  #closingQuote(from: number): number {
    let end = this.#text.indexOf('"', from);
    while (end >= 0 && this.#precedingBackslashes(end, from) % 2 === 1) {
      end = this.#text.indexOf('"', end + 1);
    }
    if (end < 0) throw this.#error("syntax", "a string has no closing quote");
    return end;
  }

  #precedingBackslashes(position: number, from: number): number {
    let count = 0;
    while (position - count > from && this.#text[position - count - 1] === "\\") count++;
    return count;
  }

  /** Escapes are left to the built-in parser, which also refuses raw control characters. */
  #decode(start: number, end: number): string {
    try {
      return JSON.parse(this.#text.slice(start, end));
    } catch {
      throw this.#error("syntax", "a string holds an invalid escape or a control character");
    }
  }

  #literalOrNumber(): JsonValue {
    for (const [word, value] of LITERALS) {
      if (this.#text.startsWith(word, this.#position)) {
        this.#position += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #number(): number {
    NUMBER.lastIndex = this.#position;
    const match = NUMBER.exec(this.#text);
    if (!match) throw this.#unexpected("a value");
    this.#position += match[0].length;
    const value = Number(match[0]);
    const isInteger = match[1] === undefined && match[2] === undefined;
    if (isInteger && !Number.isSafeInteger(value)) {
      throw this.#error("unsafe_integer", `the number ${shorten(match[0])} is beyond 2^53`);
    }
    if (!Number.isFinite(value)) {
      throw this.#error("invalid_number", `the number ${shorten(match[0])} is too large`);
    }
    if (this.#limits.naturalNumbers && (!isInteger || match[0].startsWith("-"))) {
      throw this.#error(
        "invalid_number",
        `the number ${shorten(match[0])} is not a whole number of at least 0`,
      );
    }
    return value;
  }

  #skipWhitespace(): void {
    WHITESPACE.lastIndex = this.#position;
    WHITESPACE.test(this.#text);
    this.#position = WHITESPACE.lastIndex;
  }

  #expect(character: string): void {
    if (this.#text[this.#position] !== character) throw this.#unexpected(JSON.stringify(character));
    this.#position++;
  }

  #unexpected(expected: string): JsonError {
    const rest = this.#text.slice(this.#position, this.#position + 20);
    const found = rest === "" ? "the end of the text" : JSON.stringify(rest);
    return this.#error("syntax", `at character ${this.#position} stands ${found}, expected ${expected}`);
  }

  #error(problem: JsonProblem, message: string): JsonError {
    return new JsonError(problem, message, [...this.#path]);
  }
}

function shorten(text: string): string {
  return text.length <= 40 ? text : `${text.slice(0, 37)}…`;
}
