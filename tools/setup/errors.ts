/** Why the set-up could not be done, and what to type about it. */
export class SetupError extends Error {
  override readonly name = "SetupError";

  constructor(
    /** Stable name of the failure, in snake_case. */
    readonly code:
      | "packages_missing"
      | "unknown_distribution"
      | "command_failed"
      | "command_timed_out"
      | "package_unavailable"
      | "driver_incomplete"
      | "driver_unusable"
      | "browser_missing",
    message: string,
    /** What to type or do. */
    readonly fix: string,
    /** The command or file concerned. */
    readonly where = "",
  ) {
    super(message);
  }
}
