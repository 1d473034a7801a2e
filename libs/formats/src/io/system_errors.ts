import { FormatError } from "../errors.ts";

/** What the common system errors mean to a user: our code, what happened, what to do. */
const MEANINGS: Record<string, readonly [code: string, happened: string, fix: string]> = {
  ENOENT: [
    "not_found",
    "there is no such file or folder",
    "Check the path; relative paths start where the command runs.",
  ],
  ENOTDIR: ["not_a_directory", "a part of the path is a file where a folder was expected", "Check the path."],
  EISDIR: ["not_a_file", "it is a folder where a file was expected", "Name a file inside it."],
  EACCES: [
    "permission_denied",
    "the system denies access",
    "Change the permissions or the owner, or choose another place.",
  ],
  EPERM: [
    "permission_denied",
    "the system denies access",
    "Change the permissions or the owner, or choose another place.",
  ],
  EROFS: ["read_only", "the file system is read-only", "Choose an output folder that can be written to."],
  ENOSPC: [
    "disk_full",
    "no space is left on the device",
    "Free some space, or choose an output folder on another disk.",
  ],
  EDQUOT: [
    "disk_full",
    "the disk quota is used up",
    "Free some space, or choose an output folder on another disk.",
  ],
  EFBIG: [
    "file_too_large",
    "the file system does not hold files of this size",
    "Choose another file system.",
  ],
  EEXIST: ["target_exists", "it exists already", "Choose another name, or remove the existing one."],
  ENOTEMPTY: [
    "target_exists",
    "the folder exists and is not empty",
    "Choose another name, or remove the existing one.",
  ],
  EMFILE: [
    "too_many_files",
    "too many files are open",
    "Raise the limit (ulimit -n) or close other adapters first.",
  ],
  ENFILE: [
    "too_many_files",
    "too many files are open",
    "Raise the limit (ulimit -n) or close other adapters first.",
  ],
  ELOOP: ["not_found", "its symbolic links form a loop", "Check the path."],
  ENAMETOOLONG: ["invalid_path", "the name is too long", "Choose a shorter name."],
  EXDEV: [
    "cross_device",
    "it would have to move between two file systems",
    "Choose a target on one file system.",
  ],
};

/** The system's code of an error, such as `ENOENT`, where it has one. */
export function systemCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}

/** Turns an error of the file system into a {@linkcode FormatError}; passes a `FormatError` through. */
export function fileError(error: unknown, action: string, path: string): FormatError {
  if (error instanceof FormatError) return error;
  const meaning = MEANINGS[systemCode(error) ?? ""];
  if (meaning) {
    const [code, happened, fix] = meaning;
    return new FormatError(code, `cannot ${action} ${path}: ${happened}`, fix, path, { cause: error });
  }
  const text = error instanceof Error ? error.message : String(error);
  return new FormatError(
    "io_error",
    `cannot ${action} ${path}: ${text}`,
    "Check the disk and the path.",
    path,
    { cause: error },
  );
}

/** Runs a file operation, turning its failure into a {@linkcode FormatError}. */
export async function withFileErrors<T>(
  action: string,
  path: string,
  operation: () => Promise<T>,
): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw fileError(error, action, path);
  }
}
