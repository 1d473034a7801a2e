/** A flag of a command, as data: parsing, help and "did you mean" are made from this. */
export interface FlagSpec {
  readonly name: string;
  readonly type: "boolean" | "string" | "list";
  /** How help calls the value, such as `DIR`. */
  readonly value?: string;
  readonly help: string;
  readonly choices?: readonly string[];
}

/** What a command got from the command line. */
export interface CommandInput {
  readonly args: readonly string[];
  readonly flags: Flags;
}

/** Checked flags by name. */
export class Flags {
  constructor(private readonly values: ReadonlyMap<string, boolean | string | readonly string[]>) {}

  boolean(name: string): boolean {
    return this.values.get(name) === true;
  }

  string(name: string): string | undefined {
    const value = this.values.get(name);
    return typeof value === "string" ? value : undefined;
  }

  list(name: string): readonly string[] {
    const value = this.values.get(name);
    return Array.isArray(value) ? value : [];
  }
}

/** Where a command writes: results to `out`, everything else to `note`. */
export interface Terminal {
  /** A line to standard output. */
  out(line: string): void;
  /** A line to standard error, unless `--quiet`. */
  note(line: string): void;
  /** Replaces the last line of standard error, where that is a terminal. */
  status(line: string): void;
  /** Whether standard error is a terminal, which can show a moving status line. */
  readonly isInteractive: boolean;
  /** Fires on Ctrl-C and on a request to terminate. */
  readonly signal: AbortSignal;
}

/** One command of the runner. */
export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** The arguments, as in `RECIPE` or `A B`. */
  readonly usage: string;
  /** Least and most number of arguments. */
  readonly arity: readonly [least: number, most: number];
  readonly flags: readonly FlagSpec[];
  /** Command lines that work in a fresh checkout, with what each does. */
  readonly examples: readonly (readonly [line: string, what: string])[];
  /** Does the work; the result is the exit status. */
  run(input: CommandInput, terminal: Terminal): Promise<number>;
}

/** Flags that every command has. */
export const COMMON_FLAGS: readonly FlagSpec[] = [
  { name: "json", type: "boolean", help: "print one JSON object instead of text" },
  { name: "quiet", type: "boolean", help: "no progress and no notes, only the result and errors" },
  { name: "help", type: "boolean", help: "show this help" },
];
