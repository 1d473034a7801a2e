import type { ModelWeights, StoredTensor } from "@lora-loom/formats";
import {
  add,
  cast,
  type Device,
  type DType,
  elementCount,
  reshape,
  sliceRows,
  type Tensor,
  transpose,
} from "@lora-loom/tensor";
import { ModelError } from "./errors.ts";
import { assertFinite } from "./finite.ts";

const DTYPES: Readonly<Record<string, DType>> = { BF16: "bf16", F16: "f16", F32: "f32" };

/** How a weight is stored. */
export interface LoadOptions {
  /** Whether its axes are swapped. */
  readonly transposed?: boolean;
  /** The rows to take, of a tensor that several weights share. Default all. */
  readonly rows?: readonly [start: number, end: number];
  /** What is added to every element. */
  readonly offset?: number;
}

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
   * @param shape its shape, before `rows` picks some
   * @throws {ModelError} `missing_weight`, `wrong_weight_shape`, `unsupported_dtype`
   */
  async load(name: string, shape: readonly number[], options: LoadOptions = {}): Promise<Tensor> {
    const { transposed = false, rows: [start, end] = [0, shape[0]!], offset = 0 } = options;
    const storedShape = transposed ? shape.toReversed() : shape;
    const tensor = this.#find(name, storedShape);
    const raw = await this.device.uploadStreamed(await tensor.read(), storedShape, this.#dtypeOf(tensor));
    const steps: ((x: Tensor) => Tensor)[] = [];
    if (raw.dtype !== "f32") steps.push((x) => cast(x, "f32"));
    if (transposed) steps.push(transpose);
    if (end - start < shape[0]!) steps.push((x) => rowsOf(x, start, end));
    if (offset !== 0) steps.push((x) => shifted(x, offset));
    let result = raw;
    for (const step of steps) {
      using before = result;
      result = step(before);
    }
    this.#loaded.set(end - start < shape[0]! ? `${name} from ${start}` : name, result);
    return result;
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

/** Rows of a matrix, or elements of a vector. */
function rowsOf(x: Tensor, start: number, end: number): Tensor {
  if (x.shape.length === 2) return sliceRows(x, start, end);
  using column = reshape(x, [x.shape[0]!, 1]);
  using picked = sliceRows(column, start, end);
  return reshape(picked, [end - start]);
}

function shifted(x: Tensor, offset: number): Tensor {
  using constant = x.device.upload(new Float32Array(elementCount(x.shape)).fill(offset), x.shape);
  return add(x, constant);
}
