import { type Blame, describeError } from "@lora-loom/merge";

/** The four fields of every error, as clients see them. */
export interface PublicError {
  readonly code: string;
  readonly message: string;
  readonly fix: string;
  readonly where: string;
}

/** A request that the server refuses: what was found and expected, what to do, and the HTTP status that says so. */
export class ServerError extends Error implements PublicError {
  override readonly name = "ServerError";

  /**
   * @param status HTTP status, 4xx or 5xx
   * @param code a stable name, lower-case with underscores, such as `upload_too_large`
   * @param message what was found and what was expected
   * @param fix what the client can do about it
   * @param where the field, header, file or resource concerned
   */
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly fix: string,
    readonly where: string = "",
  ) {
    super(message);
  }
}

/** An error ready to be sent. */
export interface Failure {
  readonly status: number;
  readonly error: PublicError;
}

const INTERNAL: PublicError = {
  code: "internal",
  message: "something went wrong inside the server",
  fix: "try again; if it stays, look at the server's log and report what it says",
  where: "",
};

/** Statuses of codes that are neither a wrong request (422) nor a plain failure (500). */
const STATUS_OF_CODE: Readonly<Record<string, number>> = { disk_full: 507, cancelled: 409 };

/**
 * Brings anything that was thrown into the form that clients get. What nobody foresaw becomes `internal`: its text and
 * stack are for the log alone.
 *
 * @param hide replaces what must not leave the server, such as the paths of its folders
 */
export function describeFailure(thrown: unknown, hide: (text: string) => string = (text) => text): Failure {
  if (thrown instanceof ServerError) {
    const { status, code, message, fix, where } = thrown;
    return { status, error: { code, message, fix, where } };
  }
  const { blame, code, message, fix, where } = describeError(thrown);
  if (code === "internal") return { status: 500, error: INTERNAL };
  const status = STATUS_OF_CODE[code] ?? (blame === "request" ? 422 : 500);
  return { status, error: { code, message: hide(message), fix: hide(fix), where: hide(where) } };
}

/** Why a merge failed, and whose turn it is. */
export interface MergeFailure extends PublicError {
  /** `request` for wrong input, `work` for what broke while working; not known of merges from before it was kept. */
  readonly blame?: Blame;
}

/** As {@linkcode describeFailure}, for a merge that failed long after its request was answered. */
export function describeMergeFailure(thrown: unknown, hide: (text: string) => string): MergeFailure {
  const { status, error } = describeFailure(thrown, hide);
  return { ...error, blame: status < 500 ? "request" : "work" };
}

/** The refusal of anything that needs room. */
export function storeFull(limit: number): ServerError {
  return new ServerError(
    507,
    "store_full",
    `the server keeps ${limit} bytes already, and takes no more`,
    "delete adapters or merges that are no longer needed",
  );
}

/** A resource that does not exist. */
export function notFound(what: string, id: string, list: string): ServerError {
  return new ServerError(
    404,
    "not_found",
    `there is no ${what} ${JSON.stringify(id)}`,
    `GET ${list} lists them`,
    id,
  );
}
