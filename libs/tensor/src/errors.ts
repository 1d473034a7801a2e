/** An error of the tensor library: what was found and expected, and what to do about it. */
export class TensorError extends Error {
  override readonly name = "TensorError";

  /**
   * @param code a stable name, lower-case with underscores, such as `shape_mismatch`
   * @param message what was found and what was expected
   * @param fix what the caller can do about it
   * @param where the operation, buffer or driver concerned
   */
  constructor(readonly code: string, message: string, readonly fix: string, readonly where: string = "") {
    super(message);
  }
}
