import { FormatError } from "../../errors.ts";

/** Patterns are matched against names, in time proportional to their length. */
const MAX_NAME_LENGTH = 1000;

/** @throws {FormatError} `name_too_long` */
export function checkNameLength(name: string, path: string): void {
  if (name.length <= MAX_NAME_LENGTH) return;
  throw new FormatError(
    "name_too_long",
    `a tensor's name has ${name.length} characters, at most ${MAX_NAME_LENGTH} were expected`,
    "The file is damaged or hostile: fetch it again from its source.",
    `${path} ${name.slice(0, 80)}…`,
  );
}
