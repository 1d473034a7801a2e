/** Whose turn it is after a failure: `request` for a wrong recipe, flag or input; `work` for what broke while working. */
export type Blame = "request" | "work";

/** An error of the merge library: what was found and expected, and what to do about it. */
export class MergeError extends Error {
  override readonly name = "MergeError";

  /**
   * @param code a stable name, lower-case with underscores, such as `unknown_key`
   * @param message what was found and what was expected
   * @param fix what the user can type or do about it
   * @param where the file, line, key, module or adapter concerned
   * @param blame `work` when the request was fine
   */
  constructor(
    readonly code: string,
    message: string,
    readonly fix: string,
    readonly where: string = "",
    readonly blame: Blame = "request",
  ) {
    super(message);
  }
}

/** The four fields that every error of this project has, whichever library threw it. */
export interface ErrorReport {
  readonly code: string;
  readonly message: string;
  readonly fix: string;
  readonly where: string;
  readonly blame: Blame;
}

/** Failures that other libraries report while they read a request, by code. */
const REQUEST_CODES: ReadonlySet<string> = new Set(["no_gpu", "no_software_driver", "no_adapter"]);

/** Failures of the machine, whatever library reports them, by code. */
const WORK_CODES: ReadonlySet<string> = new Set([
  "cross_device",
  "device_lost",
  "disk_full",
  "file_changed",
  "file_too_large",
  "gpu_validation",
  "io_error",
  "out_of_memory",
  "too_many_files",
]);

/** Failures of the system, by what it says. */
const SYSTEM_MESSAGES: readonly [pattern: RegExp, code: string, message: string, fix: string][] = [
  [
    /ENOSPC|No space left/i,
    "disk_full",
    "the disk is full",
    "free some space, or choose another disk with --output",
  ],
  [
    /EDQUOT|quota exceeded/i,
    "disk_full",
    "the disk quota is used up",
    "free some space, or choose another disk with --output",
  ],
  [
    /EFBIG|File too large/i,
    "file_too_large",
    "a file grew beyond what this system allows",
    "raise the limit (ulimit -f), or choose another disk with --output",
  ],
  [
    /array buffer allocation|allocation failed|out of memory/i,
    "out_of_memory",
    "there is not enough memory",
    "close other programs, or merge fewer adapters at once",
  ],
];

interface Described extends Error {
  readonly code: string;
  readonly fix: string;
  readonly where: string;
}

function isDescribed(error: unknown): error is Described {
  return error instanceof Error && "code" in error && "fix" in error && "where" in error;
}

function blameOf(error: Described): Blame {
  if (error instanceof MergeError) return error.blame;
  if (WORK_CODES.has(error.code)) return "work";
  // What a file holds is the request's doing; what a device does is not.
  return error.name === "TensorError" && !REQUEST_CODES.has(error.code) ? "work" : "request";
}

/** Brings anything that was thrown into the project's form. Unforeseen errors get the code `internal`. */
export function describeError(error: unknown): ErrorReport {
  const text = error instanceof Error ? error.message : String(error);
  // `io_error` is what a library calls a failure of the system that it has no name for.
  if (isDescribed(error) && error.code !== "io_error") {
    const { code, message, fix, where } = error;
    return { code, message, fix, where, blame: blameOf(error) };
  }
  // Libraries that know no recipes stop in the platform's own way.
  if (error instanceof Error && error.name === "AbortError") return describeError(cancelled());
  const where = isDescribed(error) ? error.where : (error as { readonly path?: string } | null)?.path ?? "";
  for (const [pattern, code, message, fix] of SYSTEM_MESSAGES) {
    if (pattern.test(text)) return { code, message: `${message} (${text})`, fix, where, blame: "work" };
  }
  if (isDescribed(error)) return { code: error.code, message: text, fix: error.fix, where, blame: "work" };
  return {
    code: "internal",
    message: text,
    fix: "this is a bug: run again with LORA_LOOM_DEBUG=1 and report what it prints",
    where,
    blame: "work",
  };
}

/** Throws a `cancelled` error when the signal has fired. */
export function throwIfCancelled(signal: AbortSignal | undefined, where = ""): void {
  if (signal?.aborted) throw cancelled(where);
}

function cancelled(where = ""): MergeError {
  return new MergeError(
    "cancelled",
    "the merge was cancelled before it was complete",
    "run it again; nothing was written",
    where,
    "work",
  );
}
