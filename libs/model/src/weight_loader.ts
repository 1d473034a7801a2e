import type { ModelWeights, StoredTensor } from "@lora-loom/formats";
import { cast, type Device, type DType, type Tensor } from "@lora-loom/tensor";
import { ModelError } from "./errors.ts";
import { assertFinite } from "./finite.ts";

const DTYPES: Readonly<Record<string, DType>> = { BF16: "bf16", F16: "f16", F32: "f32" };

/** Loads weights by name, one at a time. They cross in their stored 16-bit form and are widened on the device. Owns what it loaded. */
export class WeightLoader implements Disposable {
  readonly #loaded = new Map<string, Tensor>();

  constructor(readonly device: Device, readonly stored: ModelWeights) {}

  has(name: string): boolean {
    return this.stored.tensors.has(name);
  }

  /**
   * Loads a tensor as f32.
   *
   * @throws {ModelError} `missing_weight`, `wrong_weight_shape`, `unsupported_dtype`
   */
  async load(name: string, shape: readonly number[]): Promise<Tensor> {
    const tensor = this.#find(name, shape);
    const bytes = await tensor.read();
    const raw = this.device.upload(bytes, shape, this.#dtypeOf(tensor));
    const widened = raw.dtype === "f32" ? raw : cast(raw, "f32");
    if (widened !== raw) raw.dispose();
    this.#loaded.set(name, widened);
    return widened;
  }

  /** @throws {ModelError} `non_finite` naming a loaded weight */
  checkFinite(): Promise<void> {
    return assertFinite(this.#loaded, `fetch the model again: ${this.stored.path} is damaged`);
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#loaded.values()) tensor.dispose();
  }

  #find(name: string, shape: readonly number[]): StoredTensor {
    const tensor = this.stored.tensors.get(name);
    const where = `${this.stored.path} ${name}`;
    if (!tensor) {
      throw new ModelError(
        "missing_weight",
        `the model's files hold no ${name} of shape [${shape}]`,
        "fetch all files of the model, and see that config.json belongs to them",
        where,
      );
    }
    if (tensor.shape.length === shape.length && shape.every((size, axis) => tensor.shape[axis] === size)) {
      return tensor;
    }
    throw new ModelError(
      "wrong_weight_shape",
      `${name} has shape [${tensor.shape}], config.json asks for [${shape}]`,
      "see that config.json belongs to these weights",
      where,
    );
  }

  #dtypeOf(tensor: StoredTensor): DType {
    const dtype = DTYPES[tensor.dtype];
    if (dtype) return dtype;
    throw new ModelError(
      "unsupported_dtype",
      `${tensor.name} is stored as ${tensor.dtype}; expected BF16, F16 or F32`,
      "use the unquantised base model",
      `${this.stored.path} ${tensor.name}`,
    );
  }
}
