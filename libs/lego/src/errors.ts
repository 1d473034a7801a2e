/** An error of the LoRA-LEGO library: what was found and expected, and what to do about it. */
export class LegoError extends Error {
  override readonly name = "LegoError";

  /**
   * @param code a stable name, lower-case with underscores, such as `rank_out_of_range`
   * @param message what was found and what was expected
   * @param fix what the caller can do about it
   * @param where the option or argument concerned
   */
  constructor(readonly code: string, message: string, readonly fix: string, readonly where: string = "") {
    super(message);
  }
}
