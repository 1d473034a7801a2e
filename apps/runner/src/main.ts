/**
 * The headless runner: `main.ts COMMAND [arguments] [flags]`. Results go to standard output, progress and messages to
 * standard error. Exit status: 0 done; 2 the request is wrong; 1 it failed while working.
 */
import process from "node:process";
import { didYouMean, MergeError, nearest } from "@lora-loom/merge";
import { reportError } from "./errors.ts";
import { commandHelp, overview } from "./help.ts";
import { parseCommandLine } from "./parse.ts";
import { COMMANDS } from "./registry.ts";
import { interruptSignal, processTerminal } from "./terminal.ts";

function findCommand(name: string) {
  const command = COMMANDS.get(name);
  if (command) return command;
  const known = [...COMMANDS.keys()];
  const fix = `write deno task ${nearest(name, known)}, or see --help`;
  throw new MergeError(
    "unknown_command",
    `there is no command ${JSON.stringify(name)}; ${didYouMean(name, known)}`,
    fix,
    name,
  );
}

/** Runs one command line; the result is the exit status. */
export async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    console.log(overview(COMMANDS.values()));
    return name === undefined ? 2 : 0;
  }
  try {
    const command = findCommand(name);
    const input = parseCommandLine(command, rest);
    if (input.flags.boolean("help")) {
      console.log(commandHelp(command));
      return 0;
    }
    return await command.run(input, processTerminal(input.flags.boolean("quiet"), interruptSignal()));
  } catch (error) {
    return reportError(error, rest.includes("--json"));
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
