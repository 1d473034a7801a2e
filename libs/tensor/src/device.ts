import type { DType, Tensor } from "./tensor.ts";

/**
 * What a device is good at, which decides the kernel variants: `tensor` has f16 matrix units, `gpu` is any other hardware
 * GPU, `software` a Vulkan driver that runs on the CPU, `cpu` the float64 implementation in this library.
 */
export type DeviceClass = "tensor" | "gpu" | "software" | "cpu";

/** What a device says of itself. */
export interface DeviceInfo {
  /** `webgpu` or `cpu`. */
  readonly backend: "webgpu" | "cpu";
  readonly class: DeviceClass;
  /** For people, such as `NVIDIA H100 80GB HBM3` or `CPU (float64)`. */
  readonly name: string;
  readonly vendor: string;
  readonly driver: string;
  /** Digest of the tuned choices of kernels in use, which decide about the last bits of results; absent where the table decides alone. */
  readonly tuning?: string;
}

/** Bytes that a device's tensors hold now, and the most they ever held. */
export interface MemoryUse {
  readonly bytes: number;
  readonly peakBytes: number;
}

/**
 * Where tensors live and operations run: a GPU through WebGPU, or the CPU in float64. Both offer the same operations,
 * so code written against this interface runs on either, and the CPU is the oracle of the GPU.
 *
 * Operations are queued in order and return at once; only {@linkcode Device.download} and {@linkcode Device.finish} wait.
 */
export interface Device extends AsyncDisposable {
  readonly info: DeviceInfo;
  readonly memory: MemoryUse;
  /**
   * Copies host data into a new tensor. `data` may be any typed array, a `DataView` or a view of shared memory. A `Float64Array` is rounded to `f32`
   * where the device computes in that; every other array is taken as the bytes of `dtype` elements in native byte order.
   *
   * @param dtype defaults to `f32`, or `u32` for a `Uint32Array`
   * @throws {TensorError} `shape_mismatch` when the number of bytes does not fit `shape` and `dtype`; `out_of_memory`
   */
  upload(data: ArrayBufferView, shape: readonly number[], dtype?: DType): Tensor;
  /**
   * The same, for large data: waits for memory to copy through where {@linkcode Device.upload}, which cannot wait, takes the slow way.
   * `data` must not change meanwhile.
   */
  uploadStreamed(data: ArrayBufferView, shape: readonly number[], dtype?: DType): Promise<Tensor>;
  /** A new tensor of zeros. */
  zeros(shape: readonly number[], dtype?: DType): Tensor;
  /**
   * Reads a tensor back: a `Float32Array` from a GPU, a `Float64Array` from the CPU, a `Uint32Array` for `u32`; 16-bit
   * floats arrive widened. The tensor stays alive.
   *
   * @throws {TensorError} `device_lost`, `out_of_memory` or `gpu_validation`, for anything that failed since the last wait
   */
  download(
    tensor: Tensor,
  ): Promise<Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>;
  /**
   * Reads the elements back as the packed bytes of their dtype.
   *
   * @param into filled and returned instead of a new array, whose memory would first have to be found
   */
  downloadBytes(tensor: Tensor, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /** Waits until all queued work is done, and throws what went wrong in it. */
  finish(): Promise<void>;
  /** Releases everything. Tensors of this device are unusable afterwards. */
  dispose(): Promise<void>;
}
