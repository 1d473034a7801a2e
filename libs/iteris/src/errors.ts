/** An error of the IterIS library: what was found and expected, and what to do about it. */
export class IterisError extends Error {
  override readonly name = "IterisError";

  /**
   * @param code a stable name, lower-case with underscores, such as `too_few_samples`
   * @param message what was found and what was expected
   * @param fix what the caller can do about it
   * @param where the task, module or option concerned
   */
  constructor(readonly code: string, message: string, readonly fix: string, readonly where: string = "") {
    super(message);
  }
}
