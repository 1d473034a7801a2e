/** An error of the formats library: what was found and expected, and what to do about it. */
export class FormatError extends Error {
  override readonly name = "FormatError";
  /** A stable name, lower-case with underscores, such as `invalid_offset`. */
  readonly code: string;
  /** What to type or do about it. */
  readonly fix: string;
  /** The file, followed where it applies by the tensor, module or configuration key. */
  readonly where: string;

  /**
   * @param code a stable name, lower-case with underscores, such as `invalid_offset`
   * @param message what was found and what was expected
   * @param fix what the caller can do about it
   * @param where the file, and the tensor, module or key in it
   */
  constructor(code: string, message: string, fix: string, where = "", options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.fix = fix;
    this.where = where;
  }
}
