import type { PooledBuffer } from "./buffer_pool.ts";
import { KernelTimer } from "./kernel_timer.ts";

/** Bytes between the parameters of two dispatches: the largest alignment that WebGPU may ask for. */
const SLOT_BYTES = 256;
/** Dispatches in one submission. Enough to hide the cost of submitting. */
const SLOTS = 64;
/** Dispatches in the first submission after someone asked for one, to wait for it: the GPU is idle then and should start early. */
const FIRST_SLOTS = 8;

/**
 * Records dispatches and copies in order and submits them in batches, small ones first.
 */
export class CommandQueue {
  readonly #device: GPUDevice;
  /** Times every dispatch, where that was asked for. */
  readonly timer: KernelTimer | undefined;
  readonly #parameters: GPUBuffer;
  readonly #parameterBytes = new Uint8Array(SLOTS * SLOT_BYTES);
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #slots = 0;
  /** Dispatches after which to submit. */
  #most = FIRST_SLOTS;
  /** Number of the submission being recorded. */
  #serial = 0;
  #afterSubmit: (() => void)[] = [];

  constructor(
    device: GPUDevice,
    usage: { readonly UNIFORM: number; readonly COPY_DST: number },
    timed = false,
  ) {
    this.#device = device;
    this.timer = timed ? new KernelTimer(device, SLOTS) : undefined;
    this.#parameters = device.createBuffer({
      size: SLOTS * SLOT_BYTES,
      usage: usage.UNIFORM | usage.COPY_DST,
    });
  }

  /** The buffer that bind groups refer to for parameters; the offset is dynamic. */
  get parameters(): GPUBufferBinding {
    return { buffer: this.#parameters, size: SLOT_BYTES };
  }

  /** Says that the submission being recorded uses `buffer`. */
  use(buffer: PooledBuffer): void {
    buffer.lastUse = this.#serial;
  }

  /** Records a dispatch. `params` are the bytes of its uniform struct, or undefined when it has none. */
  dispatch(
    pipeline: GPUComputePipeline,
    group: GPUBindGroup,
    params: ArrayBuffer | undefined,
    [x, y, z]: readonly [number, number, number],
  ): void {
    if (this.timer) this.#endPass();
    const pass = this.#pass ??= this.#encode().beginComputePass(this.timer?.pass(pipeline.label));
    pass.setPipeline(pipeline);
    if (params) {
      const offset = this.#slots * SLOT_BYTES;
      this.#parameterBytes.set(new Uint8Array(params), offset);
      pass.setBindGroup(0, group, [offset]);
    } else {
      pass.setBindGroup(0, group);
    }
    pass.dispatchWorkgroups(x, y, z);
    if (++this.#slots < this.#most) return;
    const next = Math.min(SLOTS, 2 * this.#most);
    this.submit();
    this.#most = next;
  }

  /** Records commands outside compute passes, such as copies. */
  record(commands: (encoder: GPUCommandEncoder) => void): void {
    this.#endPass();
    commands(this.#encode());
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  /** True when commands that use the buffer are recorded but not submitted. */
  isUsing(buffer: PooledBuffer): boolean {
    return this.#encoder !== undefined && buffer.lastUse === this.#serial;
  }

  /** Calls `action` once what is recorded so far was submitted. */
  afterSubmit(action: () => void): void {
    this.#afterSubmit.push(action);
  }

  /** Destroys a buffer once the commands recorded so far were submitted; the driver keeps it until they are done. */
  destroyLater(buffer: PooledBuffer): void {
    if (this.isUsing(buffer)) this.afterSubmit(() => buffer.buffer.destroy());
    else buffer.buffer.destroy();
  }

  /** Submits what was recorded. */
  submit(): void {
    this.#most = FIRST_SLOTS;
    if (!this.#encoder) return;
    this.#endPass();
    const readTimes = this.timer?.resolve(this.#encoder);
    if (this.#slots > 0) {
      this.#device.queue.writeBuffer(
        this.#parameters,
        0,
        this.#parameterBytes.subarray(0, this.#slots * SLOT_BYTES),
      );
    }
    this.#device.queue.submit([this.#encoder.finish()]);
    this.#encoder = undefined;
    this.#slots = 0;
    this.#serial++;
    readTimes?.();
    for (const action of this.#afterSubmit.splice(0)) action();
  }

  #encode(): GPUCommandEncoder {
    return this.#encoder ??= this.#device.createCommandEncoder();
  }
}
