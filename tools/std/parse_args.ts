/**
 * The part of `@std/cli/parse-args` that this project uses: the import map points here so that the commands run where
 * JSR cannot be reached. Names and behaviour are those of the JSR package; going back to it is one line of the map.
 */

/** Which flags exist and how each is read. A name may be dotted: `--a.b=1` gives `{ a: { b: 1 } }`. */
export interface ParseOptions<B = unknown, S = unknown, C = unknown, D = unknown> {
  /** Puts everything after a bare `--` into the result's `"--"` instead of its `_`. */
  "--"?: boolean;
  /** Other names of a flag; every name of it appears in the result. */
  alias?: Readonly<Record<string, string | readonly string[]>>;
  /** Flags without a value, false unless given. `true` makes a boolean of each `--flag` that has no `=`. */
  boolean?: B;
  /** Values of flags that were not given. */
  default?: D;
  /** Reads no flags after the first argument that is not one. */
  stopEarly?: boolean;
  /** Flags whose value is never turned into a number; `"_"` stands for the arguments that are not flags. */
  string?: S;
  /** Flags that may be repeated and give an array, empty unless given. */
  collect?: C;
  /** Flags that `--no-flag` sets to false. */
  negatable?: string | readonly string[];
  /** Called for every argument that was not declared; it is left out of the result where this returns false. */
  unknown?: (argument: string, key?: string, value?: unknown) => unknown;
}

type Names<N> = N extends string ? N : N extends readonly (infer E extends string)[] ? E : never;
type One<K extends string, T, C> = K extends Names<C> ? T[] : T;
type DefaultOf<K extends string, D> = K extends keyof D ? D[K] : never;
type BooleanFlags<B, C, D> = { [K in Names<B>]: One<K, boolean, C> | DefaultOf<K, D> };
type StringFlags<S, C, D> = {
  [K in Exclude<Names<S>, "_">]: K extends Names<C> ? string[] | DefaultOf<K, D>
    : K extends keyof D ? string | D[K]
    : string | undefined;
};
type Declared<B, S> = [Names<B>, Names<S>] extends [never, never] ? false : true;

/** What {@linkcode parseArgs} gives: the flags by name, `_` with the other arguments, `"--"` where it was asked for. */
export type Args<B = unknown, S = unknown, C = unknown, D = unknown> =
  & { _: (string | number)[]; "--"?: string[] }
  & (Declared<B, S> extends true ? BooleanFlags<B, C, D> & StringFlags<S, C, D> & { [flag: string]: unknown }
    // Nothing is known about the flags, as in the JSR package.
    // deno-lint-ignore no-explicit-any
    : { [flag: string]: any });

type Nested = { [key: string]: unknown };

const listed = (names: unknown): string[] =>
  typeof names === "string" ? [names] : Array.isArray(names) ? names as string[] : [];

const isNumeric = (text: string): boolean =>
  /^0x[0-9a-f]+$/i.test(text) || /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?$/i.test(text);

const looksLikeFlag = (argument: string): boolean => /^--?[^-]/.test(argument);

function getNested(root: Nested, name: string): unknown {
  let value: unknown = root;
  for (const key of name.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Nested)[key];
  }
  return value;
}

function setNested(root: Nested, name: string, value: unknown): void {
  const keys = name.split(".");
  // A key such as `__proto__` must not reach the prototype of every object.
  const define = (target: Nested, key: string, entry: unknown) =>
    Object.defineProperty(target, key, {
      value: entry,
      writable: true,
      enumerable: true,
      configurable: true,
    });
  let target = root;
  for (const key of keys.slice(0, -1)) {
    const found = Object.hasOwn(target, key) ? target[key] : undefined;
    if (typeof found !== "object" || found === null) define(target, key, {});
    target = target[key] as Nested;
  }
  define(target, keys.at(-1)!, value);
}

/** Every name of each flag that has more than one. */
function aliasTable(alias: ParseOptions["alias"] = {}): Map<string, string[]> {
  const table = new Map<string, string[]>();
  for (const [name, others] of Object.entries(alias)) {
    const names = [...new Set([name, ...listed(others)].flatMap((n) => table.get(n) ?? [n]))];
    for (const n of names) table.set(n, names);
  }
  return table;
}

class Parser {
  readonly #options: ParseOptions;
  readonly #aliases: Map<string, string[]>;
  readonly #strings: Set<string>;
  readonly #booleans: Set<string>;
  readonly #collected: Set<string>;
  readonly #negatable: Set<string>;
  readonly #known: Set<string>;
  readonly #given = new Set<string>();
  readonly result: Nested & { _: (string | number)[] } = { _: [] };

  constructor(options: ParseOptions) {
    this.#options = options;
    this.#aliases = aliasTable(options.alias);
    const namesOf = (names: unknown) => new Set(listed(names).flatMap((name) => this.#namesOf(name)));
    this.#strings = namesOf(options.string);
    this.#booleans = namesOf(options.boolean);
    this.#collected = namesOf(options.collect);
    this.#negatable = namesOf(options.negatable);
    this.#known = new Set([
      ...this.#strings,
      ...this.#booleans,
      ...this.#collected,
      ...this.#negatable,
      ...this.#aliases.keys(),
      ...namesOf(Object.keys(options.default ?? {})),
    ]);
  }

  parse(args: readonly string[]): void {
    const end = args.indexOf("--");
    const flags = end < 0 ? args : args.slice(0, end);
    const rest = end < 0 ? [] : args.slice(end + 1);
    let index = 0;
    while (index < flags.length) {
      const argument = flags[index]!;
      if (!looksLikeFlag(argument)) {
        this.#addPositional(argument);
        index++;
        if (this.#options.stopEarly) {
          for (const later of flags.slice(index)) this.result._.push(later);
          break;
        }
      } else if (argument.startsWith("--")) index += this.#readLong(argument, flags[index + 1]);
      else index += this.#readShort(argument, flags[index + 1]);
    }
    if (this.#options["--"]) this.result["--"] = [...rest];
    else this.result._.push(...rest);
    this.#fillDefaults();
  }

  /** Reads `--name`, `--no-name`, `--name=value` or `--name value`; returns how many arguments it took. */
  #readLong(argument: string, next: string | undefined): number {
    const text = argument.slice(2);
    const equals = text.indexOf("=");
    if (equals > 0) {
      this.#setText(text.slice(0, equals), text.slice(equals + 1), argument);
      return 1;
    }
    if (text.startsWith("no-") && this.#negatable.has(text.slice(3))) {
      this.#store(text.slice(3), false, argument, false);
      return 1;
    }
    return this.#readValue(text, next, argument, this.#options.boolean === true);
  }

  /** Reads `-x`, `-xvalue`, `-x=value`, `-x value` or the cluster `-xyz`; returns how many arguments it took. */
  #readShort(argument: string, next: string | undefined): number {
    for (let at = 1; at < argument.length; at++) {
      const letter = argument[at]!;
      const rest = argument.slice(at + 1);
      if (rest === "") return this.#readValue(letter, next, argument, false);
      if (rest.startsWith("=")) {
        this.#setText(letter, rest.slice(1), argument);
        return 1;
      }
      // `-n5` and `-I/path` carry their value; other letters are flags of their own.
      if (rest === "-" || (/[A-Za-z]/.test(letter) && isNumeric(rest)) || /^\W/.test(rest)) {
        this.#setText(letter, rest, argument);
        return 1;
      }
      this.#store(letter, this.#strings.has(letter) ? "" : true, argument);
    }
    return 1;
  }

  #readValue(name: string, next: string | undefined, argument: string, allBooleans: boolean): number {
    if (next !== undefined && this.#booleans.has(name) && (next === "true" || next === "false")) {
      this.#store(name, next === "true", argument);
      return 2;
    }
    if (next !== undefined && !looksLikeFlag(next) && !this.#booleans.has(name) && !allBooleans) {
      this.#setText(name, next, argument);
      return 2;
    }
    const isDeclared = this.#known.has(name) || allBooleans;
    this.#store(name, this.#strings.has(name) ? "" : true, argument, true, isDeclared);
    return 1;
  }

  #setText(name: string, text: string, argument: string): void {
    if (this.#booleans.has(name)) return this.#store(name, text !== "false", argument);
    if (this.#reportUnknown(name, text, argument)) return;
    const value = !this.#strings.has(name) && isNumeric(text) ? Number(text) : text;
    this.#store(name, value, argument, true, true);
  }

  #store(
    name: string,
    value: unknown,
    argument: string,
    mayCollect = true,
    isDeclared = this.#known.has(name),
  ): void {
    if (!isDeclared && this.#reportUnknown(name, value, argument)) return;
    for (const alias of this.#namesOf(name)) {
      const earlier = this.#given.has(alias) ? getNested(this.result, alias) : undefined;
      const collects = mayCollect && this.#collected.has(alias);
      setNested(this.result, alias, collects ? [...(Array.isArray(earlier) ? earlier : []), value] : value);
      this.#given.add(alias);
    }
  }

  /** True where `name` was not declared and the `unknown` option says to leave it out. */
  #reportUnknown(name: string, value: unknown, argument: string): boolean {
    return !this.#known.has(name) && this.#options.unknown?.(argument, name, value) === false;
  }

  #addPositional(argument: string): void {
    if (this.#options.unknown?.(argument) === false) return;
    this.result._.push(!this.#strings.has("_") && isNumeric(argument) ? Number(argument) : argument);
  }

  #fillDefaults(): void {
    for (const [name, value] of Object.entries((this.#options.default ?? {}) as Nested)) {
      this.#fill(name, value);
    }
    for (const name of this.#booleans) this.#fill(name, this.#collected.has(name) ? [] : false);
    for (const name of this.#collected) this.#fill(name, []);
  }

  #fill(name: string, value: unknown): void {
    if (name === "_") return;
    for (const alias of this.#namesOf(name)) {
      if (this.#given.has(alias)) continue;
      setNested(this.result, alias, value);
      this.#given.add(alias);
    }
  }

  #namesOf(name: string): string[] {
    return this.#aliases.get(name) ?? [name];
  }
}

/**
 * Reads command-line arguments into an object.
 *
 * Values that look like numbers become numbers unless the flag is a `string` flag; a flag given twice keeps its last
 * value unless it is a `collect` flag; a `string` flag without a value is `""`.
 *
 * ```ts
 * import { parseArgs } from "@std/cli/parse-args";
 *
 * const flags = parseArgs(["recipe.yaml", "--set", "rank=8", "--json"], {
 *   boolean: ["json"],
 *   string: ["set", "output"],
 *   collect: ["set"],
 * });
 * // { _: ["recipe.yaml"], set: ["rank=8"], json: true }
 * ```
 */
export function parseArgs<
  const B extends boolean | string | readonly string[] = never,
  const S extends string | readonly string[] = never,
  const C extends string | readonly string[] = never,
  const D extends Readonly<Record<string, unknown>> = Record<never, never>,
>(args: readonly string[], options: ParseOptions<B, S, C, D> = {}): Args<B, S, C, D> {
  const parser = new Parser(options);
  parser.parse(args);
  return parser.result as unknown as Args<B, S, C, D>;
}
