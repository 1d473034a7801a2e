import { TensorError } from "../errors.ts";
import type { GpuLimits } from "./gpu_device.ts";
import { type Kernel, kernelSource } from "./kernel.ts";

/** A compiled kernel with the layout its bind groups need. */
export interface Pipeline {
  /** Tells the pipelines of a device apart. */
  readonly id: number;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Compiles each kernel once. */
export class PipelineCache {
  readonly #pipelines = new Map<Kernel, Pipeline>();
  #made = 0;

  constructor(readonly device: GPUDevice, readonly limits: GpuLimits) {}

  /** The pipeline of a kernel, compiled now if need be. */
  get(kernel: Kernel): Pipeline {
    const known = this.#pipelines.get(kernel);
    if (known) return known;
    this.#checkRequirements(kernel);
    const { layout, descriptor } = this.#describe(kernel);
    const made = { id: this.#made++, pipeline: this.device.createComputePipeline(descriptor), layout };
    this.#pipelines.set(kernel, made);
    return made;
  }

  /** Compiles kernels in parallel. */
  async compile(kernels: readonly Kernel[]): Promise<void> {
    await Promise.all(
      kernels.filter((kernel) => !this.#pipelines.has(kernel)).map(async (kernel) => {
        this.#checkRequirements(kernel);
        const { layout, descriptor } = this.#describe(kernel);
        const pipeline = await this.device.createComputePipelineAsync(descriptor);
        // Who needed it sooner has it already.
        if (this.#pipelines.has(kernel)) return;
        this.#pipelines.set(kernel, { id: this.#made++, pipeline, layout });
      }),
    );
  }

  #describe(kernel: Kernel): { layout: GPUBindGroupLayout; descriptor: GPUComputePipelineDescriptor } {
    const layout = this.device.createBindGroupLayout({ label: kernel.name, entries: layoutEntries(kernel) });
    const descriptor: GPUComputePipelineDescriptor = {
      label: kernel.name,
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: {
        module: this.device.createShaderModule({ label: kernel.name, code: kernelSource(kernel) }),
        entryPoint: "main",
      },
    };
    return { layout, descriptor };
  }

  #checkRequirements(kernel: Kernel): void {
    const { features = [], workgroupStorageBytes = 0, invocationsPerWorkgroup = 0, subgroupSize } =
      kernel.requires ?? {};
    const offered = this.device.features as unknown as ReadonlySet<string>;
    const lacking = [
      ...features.filter((feature) => !offered.has(feature)),
      ...workgroupStorageBytes > this.limits.workgroupStorageBytes
        ? [`${workgroupStorageBytes} bytes of workgroup memory`]
        : [],
      ...invocationsPerWorkgroup > this.limits.invocationsPerWorkgroup
        ? [`${invocationsPerWorkgroup} invocations a workgroup`]
        : [],
      ...subgroupSize !== undefined && subgroupSize !== this.limits.subgroupSize
        ? [`subgroups of ${subgroupSize}`]
        : [],
    ];
    if (lacking.length > 0) {
      throw new TensorError(
        "kernel_unsupported",
        `${kernel.name} needs ${lacking.join(", ")}, which this adapter does not offer`,
        "use another adapter or `device: cpu`",
        kernel.name,
      );
    }
  }
}

/** Explicit, because a layout derived from the code would leave out buffers that the code does not mention. */
export function layoutEntries(kernel: Kernel): GPUBindGroupLayoutEntry[] {
  const compute = 4; // GPUShaderStage.COMPUTE
  const buffers = kernel.buffers.map(({ access }, binding): GPUBindGroupLayoutEntry => ({
    binding,
    visibility: compute,
    buffer: { type: access === "read" ? "read-only-storage" : "storage" },
  }));
  if (kernel.params.length === 0) return buffers;
  const uniform: GPUBindGroupLayoutEntry = {
    binding: buffers.length,
    visibility: compute,
    buffer: { type: "uniform", hasDynamicOffset: true },
  };
  return [...buffers, uniform];
}

/** The bytes of a kernel's uniform struct. */
export function encodeParams(kernel: Kernel, values: readonly number[]): ArrayBuffer | undefined {
  if (values.length !== kernel.params.length) {
    throw new TensorError(
      "params_mismatch",
      `${kernel.name} takes ${kernel.params.length} parameters, found ${values.length}`,
      "pass one number per declared parameter",
      kernel.name,
    );
  }
  if (values.length === 0) return undefined;
  const bytes = new ArrayBuffer(Math.ceil(values.length / 4) * 16);
  const view = new DataView(bytes);
  kernel.params.forEach(([, type], index) => {
    const value = values[index]!;
    if (type === "f32") view.setFloat32(4 * index, value, true);
    else if (type === "i32") view.setInt32(4 * index, value, true);
    else view.setUint32(4 * index, value, true);
  });
  return bytes;
}
