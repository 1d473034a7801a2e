import { TensorError } from "../errors.ts";
import { allKernels } from "../operation.ts";
import { requestDevice } from "./adapters.ts";
import { createInstance } from "./dawn.ts";
import { type Kernel, kernelSource } from "./kernel.ts";
import { layoutEntries } from "./pipeline_cache.ts";

/** What the compiler found in one kernel. */
export interface KernelProblem {
  readonly kernel: string;
  readonly message: string;
}

/** What {@linkcode compileAllKernels} did. */
export interface CompileReport {
  /** Kernels whose WGSL was checked. */
  readonly modules: number;
  /** Kernels that also became pipelines; the others need more than Dawn's null backend offers. */
  readonly pipelines: number;
  readonly problems: readonly KernelProblem[];
}

/**
 * Compiles kernels on Dawn's null backend, which needs no GPU and no driver: the WGSL of all of them, and pipelines of
 * those that fit the backend's small limits. Checks that names are unique, too.
 *
 * @param kernels default: those of every operation that was imported so far
 */
export async function compileAllKernels(
  kernels: Iterable<Kernel> = [...allKernels().values()].flat(),
): Promise<CompileReport> {
  const gpu = await createInstance({ backend: "null", profile: "safe" });
  const adapter = await gpu.requestAdapter();
  if (!adapter) {
    throw new TensorError("no_dawn", "Dawn's null backend is missing", "run `npm install` again", "webgpu");
  }
  const { device } = await requestDevice({ gpu, adapter });
  const problems: KernelProblem[] = [];
  const byName = new Map<string, Kernel>();
  for (const kernel of new Set(kernels)) {
    if (byName.has(kernel.name)) {
      problems.push({ kernel: kernel.name, message: "another kernel has the same name" });
    }
    byName.set(kernel.name, kernel);
  }
  let pipelines = 0;
  for (const kernel of byName.values()) {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: kernel.name, code: kernelSource(kernel) });
    const { messages } = await module.getCompilationInfo();
    const errors = messages.filter(({ type }) => type === "error");
    if (errors.length === 0 && fits(kernel, device)) {
      const layout = device.createBindGroupLayout({ entries: layoutEntries(kernel) });
      device.createComputePipeline({
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
      pipelines++;
    }
    const failure = await device.popErrorScope();
    const found = errors.length > 0
      ? errors.map(({ lineNum, message }) => `line ${lineNum}: ${message}`)
      : failure
      ? [failure.message]
      : [];
    problems.push(...found.map((message) => ({ kernel: kernel.name, message })));
  }
  device.destroy();
  await device.lost;
  return { modules: byName.size, pipelines, problems };
}

function fits({ requires = {}, buffers }: Kernel, { limits, features }: GPUDevice): boolean {
  const offered = features as unknown as ReadonlySet<string>;
  return (requires.workgroupStorageBytes ?? 0) <= limits.maxComputeWorkgroupStorageSize &&
    (requires.invocationsPerWorkgroup ?? 0) <= limits.maxComputeInvocationsPerWorkgroup &&
    buffers.length <= limits.maxStorageBuffersPerShaderStage &&
    (requires.features ?? []).every((feature) => offered.has(feature));
}
