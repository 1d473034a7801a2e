import { parseArgs } from "@std/cli/parse-args";
import { didYouMean, MergeError, nearest } from "@lora-loom/merge";
import { type Command, type CommandInput, COMMON_FLAGS, Flags, type FlagSpec } from "./command.ts";

/** All flags of a command. */
export function flagsOf(command: Command): readonly FlagSpec[] {
  return [...command.flags, ...COMMON_FLAGS];
}

const namesOfType = (specs: readonly FlagSpec[], ...types: FlagSpec["type"][]) =>
  specs.filter(({ type }) => types.includes(type)).map(({ name }) => name);

function unknownFlag(argument: string, command: Command, specs: readonly FlagSpec[]): MergeError {
  const flag = argument.replace(/=.*$/s, "");
  const known = specs.map(({ name }) => `--${name}`);
  return new MergeError(
    "unknown_flag",
    `${command.name} has no flag ${flag}; ${didYouMean(flag, known)}`,
    `write ${nearest(flag, known)}, or see deno task ${command.name} --help`,
    `${command.name} ${argument}`,
  );
}

function checkValue(spec: FlagSpec, value: unknown, command: Command): void {
  const where = `${command.name} --${spec.name}`;
  if (value === "" || value === true) {
    const fix = `write --${spec.name} ${spec.value ?? "VALUE"}`;
    throw new MergeError("flag_value", `--${spec.name} needs a value, found none`, fix, where);
  }
  if (spec.choices && !spec.choices.includes(value as string)) {
    const message = `--${spec.name} takes ${spec.choices.join(", ")}, found ${JSON.stringify(value)}`;
    throw new MergeError(
      "flag_value",
      message,
      `write --${spec.name} ${nearest(String(value), spec.choices)}`,
      where,
    );
  }
}

function checkArity(command: Command, count: number): void {
  const [least, most] = command.arity;
  if (count >= least && count <= most) return;
  const expected = least === most ? `${least}` : `${least} to ${most}`;
  throw new MergeError(
    "arguments",
    `${command.name} takes ${expected} argument${expected === "1" ? "" : "s"} (${
      command.usage || "none"
    }), found ${count}`,
    `write deno task ${command.name} ${command.usage}, or see --help`,
    command.name,
  );
}

/** The arguments with `--limit -3` as `--limit=-3`: a number is the value of the flag before it, and no flag itself. */
function withNegativeNumbers(args: readonly string[], names: readonly string[]): string[] {
  const end = args.indexOf("--");
  const isValue = (index: number) =>
    index > 0 && (end < 0 || index < end) && /^-\.?\d/.test(args[index]!) &&
    names.some((name) => args[index - 1] === `--${name}`);
  return args.flatMap((argument, index) => {
    if (isValue(index)) return [];
    return isValue(index + 1) ? [`${argument}=${args[index + 1]}`] : [argument];
  });
}

/**
 * Reads a command's arguments and flags.
 *
 * @throws {MergeError} `unknown_flag`, `flag_value` or `arguments`
 */
export function parseCommandLine(command: Command, args: readonly string[]): CommandInput {
  const specs = flagsOf(command);
  const parsed = parseArgs(withNegativeNumbers(args, namesOfType(specs, "string", "list")), {
    boolean: namesOfType(specs, "boolean"),
    string: [...namesOfType(specs, "string", "list"), "_"],
    collect: namesOfType(specs, "list"),
    alias: { help: "h" },
    "--": true,
    unknown(argument: string, key?: string) {
      if (key !== undefined) throw unknownFlag(argument, command, specs);
    },
  }) as unknown as Record<string, boolean | string | string[] | undefined> & { _: string[]; "--"?: string[] };
  const values = new Map<string, boolean | string | readonly string[]>();
  for (const spec of specs) {
    const value = parsed[spec.name];
    if (value === undefined) continue;
    if (spec.type === "string") checkValue(spec, value, command);
    if (spec.type === "list") (value as string[]).forEach((entry) => checkValue(spec, entry, command));
    values.set(spec.name, value);
  }
  const positional = [...parsed._.map(String), ...(parsed["--"] ?? [])];
  if (!values.get("help")) checkArity(command, positional.length);
  return { args: positional, flags: new Flags(values) };
}
