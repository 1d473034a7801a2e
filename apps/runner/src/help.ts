import type { Command, FlagSpec } from "./command.ts";
import { flagsOf } from "./parse.ts";

function flagForm({ name, type, value }: FlagSpec): string {
  return type === "boolean" ? `--${name}` : `--${name} ${value ?? "VALUE"}`;
}

function columns(rows: readonly (readonly [left: string, right: string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}

/** Help of one command. */
export function commandHelp(command: Command): string {
  const flags = flagsOf(command).map((spec) =>
    [flagForm(spec), spec.type === "list" ? `${spec.help} (may be repeated)` : spec.help] as const
  );
  return [
    command.summary,
    "",
    `usage: deno task ${command.name}${command.usage ? ` ${command.usage}` : ""} [flags]`,
    "",
    "flags:",
    ...columns(flags),
    "",
    "examples:",
    ...command.examples.flatMap(([line, what]) => [`  # ${what}`, `  ${line}`]),
  ].join("\n");
}

/** The list of commands. */
export function overview(commands: Iterable<Command>): string {
  return [
    "LoRA Loom weaves several LoRA adapters into one.",
    "",
    "usage: deno task COMMAND [arguments] [flags]",
    "",
    "commands:",
    ...columns([...commands].map(({ name, summary }) => [name, summary] as const)),
    "",
    "deno task serve starts the server: the same by HTTP and in a web page; deno task serve --help shows its flags.",
    "deno task COMMAND --help shows a command's flags and examples.",
  ].join("\n");
}
