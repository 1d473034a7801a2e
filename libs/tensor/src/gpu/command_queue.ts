import type { PooledBuffer } from "./buffer_pool.ts";

/** Bytes between the parameters of two dispatches: the largest alignment that WebGPU may ask for. */
const SLOT_BYTES = 256;
/** Dispatches in one submission. Enough to hide the cost of submitting, few enough that the GPU starts early. */
const SLOTS = 64;

/**
 * Records dispatches and copies in order and submits them in batches. Buffers written by the host are ordered against the
 * commands: what is still being recorded is submitted first.
 */
export class CommandQueue {
  readonly #device: GPUDevice;
  readonly #parameters: GPUBuffer;
  readonly #parameterBytes = new Uint8Array(SLOTS * SLOT_BYTES);
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #slots = 0;
  /** Number of the submission being recorded. */
  #serial = 0;
  #doomed: PooledBuffer[] = [];

  constructor(device: GPUDevice, usage: { readonly UNIFORM: number; readonly COPY_DST: number }) {
    this.#device = device;
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
    const pass = this.#pass ??= this.#encode().beginComputePass();
    pass.setPipeline(pipeline);
    if (params) {
      const offset = this.#slots * SLOT_BYTES;
      this.#parameterBytes.set(new Uint8Array(params), offset);
      pass.setBindGroup(0, group, [offset]);
    } else {
      pass.setBindGroup(0, group);
    }
    pass.dispatchWorkgroups(x, y, z);
    if (++this.#slots === SLOTS) this.submit();
  }

  /** Records commands outside compute passes, such as copies. */
  record(commands: (encoder: GPUCommandEncoder) => void): void {
    this.#pass?.end();
    this.#pass = undefined;
    commands(this.#encode());
  }

  /** Writes host bytes into a buffer, after all commands recorded so far that use it. */
  write(buffer: PooledBuffer, bytes: Uint8Array<ArrayBuffer>): void {
    // A write is ordered before commands that are not submitted yet, so it would overtake them.
    if (this.#encoder && buffer.lastUse === this.#serial) this.submit();
    const chunk = 2 ** 26; // bounds what Dawn stages at a time
    for (let start = 0; start < bytes.length; start += chunk) {
      this.#device.queue.writeBuffer(buffer.buffer, start, bytes.subarray(start, start + chunk));
    }
  }

  /** Destroys a buffer once the commands recorded so far were submitted; the driver keeps it until they are done. */
  destroyLater(buffer: PooledBuffer): void {
    if (this.#encoder && buffer.lastUse === this.#serial) this.#doomed.push(buffer);
    else buffer.buffer.destroy();
  }

  /** Submits what was recorded. */
  submit(): void {
    if (!this.#encoder) return;
    this.#pass?.end();
    this.#pass = undefined;
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
    for (const { buffer } of this.#doomed.splice(0)) buffer.destroy();
  }

  #encode(): GPUCommandEncoder {
    return this.#encoder ??= this.#device.createCommandEncoder();
  }
}
