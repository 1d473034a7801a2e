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

/** The refusal to compute with weights that are not on the device. */
export function notHeld(weight: string): ModelError {
  return new ModelError(
    "weights_not_held",
    `${weight} is not on the device: this model's weights are streamed from its files`,
    "await model.hold(…) for what is to be computed, or open the model with residency: resident",
    weight,
  );
}
