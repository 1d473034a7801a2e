import type { Command } from "./command.ts";
import { compare } from "./commands/compare.ts";
import { convert } from "./commands/convert.ts";
import { diff } from "./commands/diff.ts";
import { evalCommand } from "./commands/eval.ts";
import { doctor } from "./commands/doctor.ts";
import { inspect } from "./commands/inspect.ts";
import { merge } from "./commands/merge.ts";

/** Every command by name, in the order in which help lists them. */
export const COMMANDS: ReadonlyMap<string, Command> = new Map(
  [merge, compare, evalCommand, inspect, convert, diff, doctor].map((command) => [command.name, command]),
);
