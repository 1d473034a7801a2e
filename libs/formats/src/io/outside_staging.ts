import { FormatError } from "../errors.ts";

/**
 * An error about a file that was being written beside its target, as one about the target: the other name is gone when a
 * user reads of it. Other errors stay as they are.
 *
 * @param staged the path of the staging
 */
export function outsideStaging(error: unknown, staged: string, target: string): unknown {
  if (!(error instanceof FormatError)) return error;
  const { code, message, fix, where } = error;
  if (![message, fix, where].some((text) => text.includes(staged))) return error;
  const renamed = (text: string) => text.replaceAll(staged, () => target);
  return new FormatError(code, renamed(message), renamed(fix), renamed(where), { cause: error.cause });
}
