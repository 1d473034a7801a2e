/** The options that a program does not know among those that `parseArgs` read, as they were typed. */
export function unknownOptions(flags: Readonly<Record<string, unknown>>, known: readonly string[]): string[] {
  return Object.keys(flags)
    .filter((name) => name !== "_" && !known.includes(name))
    .map((name) => name.length === 1 ? `-${name}` : `--${name}`);
}
