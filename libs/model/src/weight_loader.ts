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
import { putRows } from "./ops/rows.ts";
import { readScattered, type RowRange, WeightReader } from "./weight_reader.ts";

const DTYPES: Readonly<Record<string, DType>> = { BF16: "bf16", F16: "f16", F32: "f32" };

/** A matrix of more stored bytes crosses in runs of rows of at most so many, which bounds what the host holds of it. */
const BYTES_AT_ONCE = 256 * 2 ** 20;

/** How a weight is stored. */
export interface LoadOptions {
  /** Whether its axes are swapped. */
  readonly transposed?: boolean;
  /** The rows to take, of a tensor that several weights share. Default all. */
  readonly rows?: RowRange;
  /** What is added to every element. */
  readonly offset?: number;
  /** Leave it in the type in which it is stored, where nothing has to be done to it. Default: f32. */
  readonly asStored?: boolean;
}

/** A weight in the model's files. */
export interface WeightRequest extends LoadOptions {
  readonly name: string;
  /** Its shape, before `rows` picks some. */
  readonly shape: readonly number[];
}

/**
 * Loads weights, one at a time. They cross in their stored 16-bit form and are widened on the device, unless they are to stay as they
 * are stored. Owns what it loaded.
 */
export class WeightLoader implements Disposable {
  readonly #loaded = new Map<string, Tensor>();

  constructor(
    readonly device: Device,
    readonly stored: ModelWeights,
    readonly reader: WeightReader = new WeightReader(),
    readonly bytesAtOnce = BYTES_AT_ONCE,
  ) {}

  has(name: string): boolean {
    return this.stored.tensors.has(name);
  }

  /** {@linkcode WeightLoader.take} by name. */
  load(name: string, shape: readonly number[], options: LoadOptions = {}): Promise<Tensor> {
    return this.take({ name, shape, ...options });
  }

  /**
   * Loads a tensor, as f32 or as it is stored.
   *
   * @throws {ModelError} `missing_weight`, `wrong_weight_shape`, `unsupported_dtype`
   */
  async take(request: WeightRequest): Promise<Tensor> {
    const { name, shape, transposed = false, rows = [0, shape[0]!], offset = 0 } = request;
    const tensor = findWeight(this.stored, request);
    // Rows of a transposed tensor lie scattered, so that it is read whole.
    const whole: RowRange = [0, tensor.shape[0]!];
    const keeps = request.asStored && !transposed && offset === 0;
    const dtype = keeps ? dtypeOf(this.stored, tensor) : "f32";
    let result = await this.#upload(tensor, transposed ? whole : rows, dtype);
    const steps: ((x: Tensor) => Tensor)[] = [];
    if (transposed) steps.push(transpose);
    if (transposed && rows[1] - rows[0] < shape[0]!) steps.push((x) => rowsOf(x, ...rows));
    if (offset !== 0) steps.push((x) => shifted(x, offset));
    for (const step of steps) {
      using before = result;
      result = step(before);
    }
    this.#loaded.set(rows[1] - rows[0] < shape[0]! ? `${name} from ${rows[0]}` : name, result);
    return result;
  }

  /** Loads some rows of a matrix as f32, in ascending order, `[rows, width]`. */
  async takeRows(request: WeightRequest, rows: readonly number[]): Promise<Tensor> {
    const tensor = findWeight(this.stored, request);
    const bytes = await readScattered(tensor, rows);
    const result = await this.#toDevice(tensor, bytes, rows.length, "f32");
    this.#loaded.set(request.name, result);
    return result;
  }

  /** @throws {ModelError} `non_finite` naming a loaded weight */
  checkFinite(): Promise<void> {
    return assertFinite(this.#loaded, `fetch the model again: ${this.stored.path} is damaged`);
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#loaded.values()) tensor.dispose();
  }

  /** Some rows, as `wanted` or, where runs of such rows cannot be put together, as f32. */
  async #upload(tensor: StoredTensor, [start, end]: RowRange, wanted: DType): Promise<Tensor> {
    const rowBytes = tensor.byteLength / tensor.shape[0]!;
    const perRun = Math.max(1, Math.floor(this.bytesAtOnce / rowBytes));
    if (end - start <= perRun) return await this.#uploadRun(tensor, [start, end], wanted);
    // Copies on a device go by whole words.
    const dtype = rowBytes % 4 === 0 ? wanted : "f32";
    const whole = this.device.zeros([end - start, ...tensor.shape.slice(1)], dtype);
    try {
      for (let row = start; row < end; row += perRun) {
        using run = await this.#uploadRun(tensor, [row, Math.min(end, row + perRun)], dtype);
        putRows(run, whole, row - start);
      }
      return whole;
    } catch (error) {
      whole.dispose();
      throw error;
    }
  }

  async #uploadRun(tensor: StoredTensor, rows: RowRange, dtype: DType): Promise<Tensor> {
    return await this.#toDevice(tensor, await this.reader.read(tensor, rows), rows[1] - rows[0], dtype);
  }

  async #toDevice(
    tensor: StoredTensor,
    bytes: Uint8Array<ArrayBuffer>,
    rows: number,
    dtype: DType,
  ): Promise<Tensor> {
    const shape = [rows, ...tensor.shape.slice(1)];
    const raw = await this.device.uploadStreamed(bytes, shape, dtypeOf(this.stored, tensor));
    if (raw.dtype === dtype) return raw;
    using narrow = raw;
    return cast(narrow, dtype);
  }
}

/**
 * The stored tensor of a weight, seen to have the right shape and a type that can be run.
 *
 * @throws {ModelError} `missing_weight`, `wrong_weight_shape`, `unsupported_dtype`
 */
export function findWeight(stored: ModelWeights, { name, shape, transposed }: WeightRequest): StoredTensor {
  const tensor = stored.tensors.get(name);
  const expected = transposed ? shape.toReversed() : shape;
  const where = `${stored.path} ${name}`;
  if (!tensor) {
    throw new ModelError(
      "missing_weight",
      `the model's files hold no ${name} of shape [${expected}]`,
      "fetch all files of the model, and see that config.json belongs to them",
      where,
    );
  }
  if (tensor.shape.length !== expected.length || expected.some((size, axis) => tensor.shape[axis] !== size)) {
    throw new ModelError(
      "wrong_weight_shape",
      `${name} has shape [${tensor.shape}], config.json asks for [${expected}]`,
      "see that config.json belongs to these weights",
      where,
    );
  }
  dtypeOf(stored, tensor);
  return tensor;
}

function dtypeOf(stored: ModelWeights, tensor: StoredTensor): DType {
  const dtype = DTYPES[tensor.dtype];
  if (dtype) return dtype;
  throw new ModelError(
    "unsupported_dtype",
    `${tensor.name} is stored as ${tensor.dtype}; expected BF16, F16 or F32`,
    "use the unquantised base model",
    `${stored.path} ${tensor.name}`,
  );
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
