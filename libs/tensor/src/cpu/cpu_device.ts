import type { Device, DeviceInfo, MemoryUse } from "../device.ts";
import { TensorError } from "../errors.ts";
import { checkDestination } from "../gpu/upload_bytes.ts";
import { decodeToFloat64 } from "./decode.ts";
import { encodeElements } from "./encode.ts";
import { BYTES_PER_ELEMENT, type DType, elementCount, type Tensor } from "../tensor.ts";

/** Host memory that a tensor and its reshapes share. */
interface Storage {
  readonly data: Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
  owners: number;
}

/** A tensor in host memory: every float type is held as float64, `u32` as is. */
export class CpuTensor implements Tensor {
  #storage: Storage | undefined;

  constructor(
    readonly device: CpuDevice,
    readonly shape: readonly number[],
    readonly dtype: DType,
    data: Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Storage,
  ) {
    if ("owners" in data) {
      this.#storage = data;
      data.owners++;
    } else {
      this.#storage = { data, owners: 1 };
      device.account(data.byteLength);
    }
  }

  get disposed(): boolean {
    return this.#storage === undefined;
  }

  /** The elements. Callers that write to it change the tensor. */
  get data(): Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer> {
    return this.#alive().data;
  }

  /** The elements of a float tensor. */
  get floats(): Float64Array<ArrayBuffer> {
    const data = this.data;
    if (data instanceof Float64Array) return data;
    throw new TensorError("dtype_mismatch", "expected a float tensor, found u32", "convert it with cast");
  }

  /** A tensor of another shape over the same memory. */
  share(shape: readonly number[]): CpuTensor {
    return new CpuTensor(this.device, [...shape], this.dtype, this.#alive());
  }

  #alive(): Storage {
    if (this.#storage) return this.#storage;
    throw new TensorError("tensor_disposed", "this tensor was disposed", "dispose it after its last use");
  }

  dispose(): void {
    const storage = this.#storage;
    this.#storage = undefined;
    if (storage && --storage.owners === 0) this.device.account(-storage.data.byteLength);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The float64 implementation of every operation: the tests' oracle, and the fallback where there is no Vulkan driver. */
export class CpuDevice implements Device {
  readonly info: DeviceInfo = {
    backend: "cpu",
    class: "cpu",
    name: "CPU (float64)",
    vendor: "none",
    driver: "none",
  };
  #bytes = 0;
  #peakBytes = 0;

  get memory(): MemoryUse {
    return { bytes: this.#bytes, peakBytes: this.#peakBytes };
  }

  /** Adds to (or takes from) the bytes in use. */
  account(bytes: number): void {
    this.#bytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#bytes);
  }

  upload(data: ArrayBufferView, shape: readonly number[], dtype?: DType): CpuTensor {
    const type = dtype ?? (data instanceof Uint32Array ? "u32" : "f32");
    const elementBytes = data instanceof Float64Array && type !== "u32" ? 8 : BYTES_PER_ELEMENT[type];
    if (data.byteLength !== elementCount(shape) * elementBytes) {
      throw new TensorError(
        "shape_mismatch",
        `upload got ${data.byteLength} bytes for shape [${shape}] of ${type}, which takes ${
          elementCount(shape) * elementBytes
        }`,
        "pass data and shape that agree",
        "upload",
      );
    }
    return new CpuTensor(this, [...shape], type, decodeToFloat64(data, type));
  }

  uploadStreamed(data: ArrayBufferView, shape: readonly number[], dtype?: DType): Promise<CpuTensor> {
    return Promise.try(() => this.upload(data, shape, dtype));
  }

  zeros(shape: readonly number[], dtype: DType = "f32"): CpuTensor {
    const count = elementCount(shape);
    return new CpuTensor(
      this,
      [...shape],
      dtype,
      dtype === "u32" ? new Uint32Array(count) : new Float64Array(count),
    );
  }

  /** A new tensor that takes over `data`; for the CPU side of operations. */
  wrap(
    data: Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>,
    shape: readonly number[],
    dtype?: DType,
  ): CpuTensor {
    return new CpuTensor(this, [...shape], dtype ?? (data instanceof Uint32Array ? "u32" : "f32"), data);
  }

  download(tensor: Tensor): Promise<Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>> {
    return Promise.resolve((tensor as CpuTensor).data.slice());
  }

  downloadBytes(tensor: Tensor, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const { buffer, byteOffset, byteLength } = encodeElements((tensor as CpuTensor).data, tensor.dtype);
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    return Promise.try(() => {
      checkDestination(into, byteLength);
      if (!into) return bytes;
      into.set(bytes);
      return into;
    });
  }

  finish(): Promise<void> {
    return Promise.resolve();
  }

  dispose(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
