import type { DeviceInfo, MemoryUse } from "../device.ts";
import { TensorError } from "../errors.ts";
import { BYTES_PER_ELEMENT, type DType, elementCount, type Tensor } from "../tensor.ts";
import { decodeToFloat64 } from "../cpu/decode.ts";
import { BindGroupCache, type Binding } from "./bind_group_cache.ts";
import { BufferPool, mostFreeBytes, sizeClass } from "./buffer_pool.ts";
import { CommandQueue } from "./command_queue.ts";
import { FailureLog, outOfMemory } from "./failures.ts";
import type { GpuDevice, GpuLimits, TensorWindow } from "./gpu_device.ts";
import { type Allocation, GpuTensor } from "./gpu_tensor.ts";
import type { Kernel } from "./kernel.ts";
import { MAX_WORKGROUPS } from "./limits.ts";
import type { KernelTime } from "./kernel_timer.ts";
import { beginWait } from "./polling.ts";
import { encodeParams, PipelineCache } from "./pipeline_cache.ts";
import { Readback } from "./readback.ts";
import { FILL } from "./fill.ts";
import { Uploader } from "./uploader.ts";
import { checkDestination, hostBytes, storedBytes, uploadBytes } from "./upload_bytes.ts";

/** What Dawn calls its flags; the standard's values. */
const BUFFER = { MAP_READ: 0x1, COPY_SRC: 0x4, COPY_DST: 0x8, UNIFORM: 0x40, STORAGE: 0x80 };
const MAP_READ_MODE = 0x1;

/** Everything of Dawn that has to stay alive as long as the device does. */
export interface DawnObjects {
  /** The result of Dawn's `create`; if it is collected while the device lives, the process crashes. */
  readonly gpu: GPU;
  readonly adapter: GPUAdapter;
  readonly device: GPUDevice;
}

/** Devices that were not disposed. Holding them here keeps their Dawn objects out of the garbage collector's reach. */
const open = new Set<WebGpuDevice>();

/** Settings of a {@linkcode WebGpuDevice}. */
export interface WebGpuDeviceOptions {
  readonly memoryBudgetBytes?: number;
  /** Fill every tensor of undefined contents with NaN, so that a kernel that reads them is found out. For tests. */
  readonly poison?: boolean;
  /** Bind at most this many bytes at once. For tests. */
  readonly maxBindingBytes?: number;
  /** Time every dispatch, where the adapter has timestamps. */
  readonly timeKernels?: boolean;
  /** Variants of matrix products by bucket of shapes; the table decides about the others. */
  readonly productChoices?: ReadonlyMap<string, string>;
}

/** A device on any adapter that Dawn offers. Opened by `openDevice`. */
export class WebGpuDevice implements GpuDevice {
  readonly info: DeviceInfo;
  readonly limits: GpuLimits;
  readonly features: ReadonlySet<string>;
  readonly tuned: ReadonlyMap<string, string>;
  readonly #dawn: DawnObjects;
  readonly #pool: BufferPool;
  readonly #queue: CommandQueue;
  readonly #uploader: Uploader;
  readonly #pipelines: PipelineCache;
  readonly #bindGroups: BindGroupCache;
  readonly #readback: Readback;
  readonly #failures: FailureLog;
  readonly #poison: boolean;
  #disposed = false;

  constructor(dawn: DawnObjects, info: DeviceInfo, options: WebGpuDeviceOptions = {}) {
    const { device } = dawn;
    this.#dawn = dawn;
    this.info = info;
    this.features = new Set(device.features);
    this.tuned = options.productChoices ?? new Map();
    this.limits = {
      maxBindingBytes: Math.floor(
        Math.min(device.limits.maxStorageBufferBindingSize, options.maxBindingBytes ?? Infinity) / 256,
      ) * 256,
      windowAlignmentBytes: 256,
      workgroupStorageBytes: device.limits.maxComputeWorkgroupStorageSize,
      invocationsPerWorkgroup: device.limits.maxComputeInvocationsPerWorkgroup,
      subgroupSize: this.features.has("subgroups") ? fixedSubgroupSize(dawn.adapter.info) : 0,
    };
    this.#failures = new FailureLog(device);
    this.#queue = new CommandQueue(
      device,
      BUFFER,
      (options.timeKernels ?? false) && this.features.has("timestamp-query"),
    );
    this.#uploader = new Uploader(device, this.#queue, this.#onHardware);
    this.#pipelines = new PipelineCache(device, this.limits);
    this.#bindGroups = new BindGroupCache(device);
    this.#readback = new Readback(device, BUFFER, MAP_READ_MODE);
    this.#pool = new BufferPool(
      (size) => device.createBuffer({ size, usage: BUFFER.STORAGE | BUFFER.COPY_SRC | BUFFER.COPY_DST }),
      (buffer) => this.#queue.destroyLater(buffer),
      options.memoryBudgetBytes ?? Infinity,
      mostFreeBytes(info.class),
    );
    this.#poison = options.poison ?? false;
    open.add(this);
  }

  get memory(): MemoryUse {
    return { bytes: this.#pool.usedBytes, peakBytes: this.#pool.peakBytes };
  }

  /** What each kernel cost so far, the costliest first; empty unless the device was opened with `timeKernels`. */
  async kernelTimes(): Promise<readonly KernelTime[]> {
    await this.finish();
    return await this.#queue.timer?.times() ?? [];
  }

  /** Starts {@linkcode kernelTimes} anew. */
  async resetKernelTimes(): Promise<void> {
    await this.kernelTimes();
    this.#queue.timer?.reset();
  }

  /** Bytes of buffers that no tensor holds, kept for the next one. */
  get cachedBytes(): number {
    return this.#pool.freeBytes;
  }

  upload(data: ArrayBufferView, shape: readonly number[], dtype?: DType): Tensor {
    const { tensor, bytes } = this.#prepareUpload(data, shape, dtype);
    if (bytes.length > 0) this.#uploader.write(tensor.allocation.pooled, bytes);
    return tensor;
  }

  async uploadStreamed(data: ArrayBufferView, shape: readonly number[], dtype?: DType): Promise<Tensor> {
    const { tensor, bytes } = this.#prepareUpload(data, shape, dtype);
    if (bytes.length > 0) await this.#wait(() => this.#uploader.stream(tensor.allocation.pooled, bytes));
    return tensor;
  }

  #prepareUpload(
    data: ArrayBufferView,
    shape: readonly number[],
    dtype: DType = data instanceof Uint32Array ? "u32" : "f32",
  ): { tensor: GpuTensor; bytes: Uint8Array<ArrayBuffer> } {
    const expected = hostBytes(data, elementCount(shape), dtype);
    if (data.byteLength !== expected) {
      throw new TensorError(
        "shape_mismatch",
        `upload got ${data.byteLength} bytes for shape [${shape}] of ${dtype}, which takes ${expected}`,
        "pass data and shape that agree",
        "upload",
      );
    }
    return { tensor: this.#allocate(shape, dtype), bytes: uploadBytes(data, dtype) };
  }

  zeros(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const tensor = this.#allocate(shape, dtype);
    const { pooled } = tensor.allocation;
    this.#queue.record((encoder) => encoder.clearBuffer(pooled.buffer, 0, pooled.bytes));
    this.#queue.use(pooled);
    return tensor;
  }

  empty(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const tensor = this.#allocate(shape, dtype);
    if (this.#poison) this.#fillWithNaN(tensor);
    return tensor;
  }

  #fillWithNaN(tensor: GpuTensor): void {
    const words = tensor.allocation.pooled.bytes / 4;
    const perWindow = this.limits.maxBindingBytes / 4;
    for (let start = 0; start < words; start += perWindow) {
      const count = Math.min(perWindow, words - start);
      const binding = { pooled: tensor.allocation.pooled, offset: 4 * start, size: 4 * count };
      this.#queue.use(tensor.allocation.pooled);
      this.#record(FILL, [binding], [count, 0x7fc00000], [Math.min(1024, Math.ceil(count / 64))]);
    }
  }

  share(tensor: Tensor, shape: readonly number[]): Tensor {
    return new GpuTensor(this, [...shape], tensor.dtype, this.#own(tensor).allocation, this.#release);
  }

  sameMemory(a: Tensor, b: Tensor): boolean {
    return this.#own(a).allocation === this.#own(b).allocation;
  }

  compile(kernels: readonly Kernel[]): Promise<void> {
    return this.#pipelines.compile(kernels);
  }

  dispatch(
    kernel: Kernel,
    tensors: readonly (Tensor | TensorWindow)[],
    params: readonly number[],
    workgroups: readonly [number, number?, number?],
  ): void {
    if (tensors.length !== kernel.buffers.length) {
      throw new TensorError(
        "bindings_mismatch",
        `${kernel.name} binds ${kernel.buffers.length} buffers, found ${tensors.length} tensors`,
        "pass one tensor per declared buffer",
        kernel.name,
      );
    }
    const bindings = tensors.map((entry) => this.#binding(entry, kernel.name));
    this.#record(kernel, bindings, params, workgroups);
  }

  #record(
    kernel: Kernel,
    bindings: readonly Binding[],
    params: readonly number[],
    [x, y = 1, z = 1]: readonly [number, number?, number?],
  ): void {
    if (x === 0 || y === 0 || z === 0) return;
    if (x > MAX_WORKGROUPS || y > MAX_WORKGROUPS || z > MAX_WORKGROUPS) {
      throw new TensorError(
        "grid_too_large",
        `${kernel.name} was dispatched with ${x} × ${y} × ${z} workgroups; at most ${MAX_WORKGROUPS} fit an axis`,
        "fold the workgroups into further axes",
        kernel.name,
      );
    }
    const pipeline = this.#pipelines.get(kernel);
    const encoded = encodeParams(kernel, params);
    const group = this.#bindGroups.get(pipeline, bindings, encoded && this.#queue.parameters);
    this.#queue.dispatch(pipeline.pipeline, group, encoded, [x, y, z]);
  }

  copyElements(from: Tensor, fromStart: number, to: Tensor, toStart: number, count: number): void {
    if (count === 0) return;
    const size = BYTES_PER_ELEMENT[from.dtype];
    const source = this.#own(from).allocation.pooled;
    const target = this.#own(to).allocation.pooled;
    this.#queue.record((encoder) =>
      encoder.copyBufferToBuffer(source.buffer, fromStart * size, target.buffer, toStart * size, count * size)
    );
    this.#queue.use(source);
    this.#queue.use(target);
  }

  async download(
    tensor: Tensor,
  ): Promise<Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>> {
    const bytes = await this.downloadBytes(tensor);
    if (tensor.dtype === "u32") return new Uint32Array(bytes.buffer);
    if (tensor.dtype === "f32") return new Float32Array(bytes.buffer);
    return new Float32Array(decodeToFloat64(bytes, tensor.dtype));
  }

  async downloadBytes(tensor: Tensor, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const { pooled } = this.#own(tensor).allocation;
    const exact = elementCount(tensor.shape) * BYTES_PER_ELEMENT[tensor.dtype];
    checkDestination(into, exact);
    // Copies on a GPU go by whole words; an array for an odd number of 16-bit elements has no room for the last one's second half.
    const stored = storedBytes(elementCount(tensor.shape), tensor.dtype);
    const target = into && stored === exact ? into : new Uint8Array(stored);
    this.#queue.submit();
    await this.#wait(() => this.#readback.read(pooled.buffer, target));
    if (target === into || stored === exact) return target;
    if (!into) return target.slice(0, exact);
    into.set(target.subarray(0, exact));
    return into;
  }

  async finish(): Promise<void> {
    this.#queue.submit();
    await this.#wait(() => this.#dawn.device.queue.onSubmittedWorkDone());
  }

  async #wait<T>(work: () => Promise<T>): Promise<T> {
    this.#checkOpen();
    this.#failures.throwIfAny();
    beginWait(this.#onHardware);
    let result: T;
    try {
      result = await work();
    } catch (error) {
      throw this.#failures.explain(error);
    }
    this.#failures.throwIfAny();
    return result;
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#failures.close();
    const { device } = this.#dawn;
    // Destroying a busy device would block this thread until its work is done.
    await device.queue.onSubmittedWorkDone().catch(() => {});
    await this.#uploader.destroy();
    this.#readback.destroy();
    await this.#queue.timer?.destroy();
    device.destroy();
    await device.lost;
    open.delete(this);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  readonly #release = (allocation: Allocation): void => {
    if (!this.#disposed) this.#pool.give(allocation.pooled);
  };

  #allocate(shape: readonly number[], dtype: DType): GpuTensor {
    this.#checkOpen();
    const most = this.#dawn.device.limits.maxBufferSize;
    if (sizeClass(storedBytes(elementCount(shape), dtype)) > most) {
      throw outOfMemory(
        `a tensor of shape [${shape}] in ${dtype} exceeds the ${most} bytes of this adapter's largest buffer`,
      );
    }
    const pooled = this.#pool.take(storedBytes(elementCount(shape), dtype));
    return new GpuTensor(this, [...shape], dtype, { pooled, owners: 0 }, this.#release);
  }

  #own(tensor: Tensor): GpuTensor {
    if (tensor instanceof GpuTensor && tensor.device === this) return tensor;
    throw new TensorError("device_mismatch", "got a tensor of another device", "upload it to this device");
  }

  #binding(entry: Tensor | TensorWindow, where: string): Binding {
    const [tensor, start, end] = "tensor" in entry
      ? [entry.tensor, entry.start, entry.end]
      : [entry, 0, elementCount(entry.shape)];
    const { pooled } = this.#own(tensor).allocation;
    const offset = start * BYTES_PER_ELEMENT[tensor.dtype];
    // Kernels may read whole vec4s at the end; the size classes of the pool leave room for that.
    const size = Math.max(16, Math.ceil((end - start) * BYTES_PER_ELEMENT[tensor.dtype] / 16) * 16);
    if (size > this.limits.maxBindingBytes) {
      throw new TensorError(
        "binding_too_large",
        `${where} needs ${size} bytes of one tensor at once, but this adapter binds at most ${this.limits.maxBindingBytes}`,
        "split the tensor by rows, or use an adapter with larger limits or `device: cpu`",
        where,
      );
    }
    this.#queue.use(pooled);
    return { pooled, offset, size };
  }

  /** Whether the GPU is not this processor. */
  get #onHardware(): boolean {
    return this.info.class !== "software";
  }

  #checkOpen(): void {
    if (!this.#disposed) return;
    throw new TensorError(
      "device_disposed",
      "the device was disposed",
      "open a new one with openDevice",
      "device",
    );
  }
}

/** Invocations of every subgroup, 0 where they differ. */
function fixedSubgroupSize({ subgroupMinSize, subgroupMaxSize }: GPUAdapterInfo): number {
  return subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0;
}
