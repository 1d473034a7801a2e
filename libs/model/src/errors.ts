/** An error of the model library: what was found and expected, and what to do about it. */
export class ModelError extends Error {
  override readonly name = "ModelError";

  /**
   * @param code a stable name, lower-case with underscores, such as `unsupported_architecture`
   * @param message what was found and what was expected
   * @param fix what the caller can do about it
   * @param where the file, module or stage concerned
   */
  constructor(readonly code: string, message: string, readonly fix: string, readonly where: string = "") {
    super(message);
  }
}
