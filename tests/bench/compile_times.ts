/**
 * How long each kernel takes to compile on the adapter at hand, the slowest first.
 *
 *     MESA_SHADER_CACHE_DISABLE=true deno run -A tests/bench/compile_times.ts [--device auto] [--only REGEX] [--least 0.05] [--bar 0.2] [--all] [--json]
 *
 * Kernels that this class of device does not use are left out unless there is `--all`: a software driver takes a minute for one of hardware's. The last line
 * says whether all that were measured are below `--bar`; times taken beside other programs are up to twice as long.
 *
 * Two parts: Dawn translates WGSL when it makes a pipeline, and a software driver compiles to machine code when the pipeline is first
 * dispatched, which is done here over no work at all. Times are of the processor, in seconds, all threads together, so that other
 * programs do not count, and the least of three. Kernels that the adapter cannot run are left out. Where the driver keeps what it compiled on disk, as
 * Mesa does, a second run shows that; the variable above turns it off.
 */
import process from "node:process";
import { parseArgs } from "@std/cli/parse-args";
// For the kernels of their operations.
import "@lora-loom/iteris";
import "@lora-loom/lego";
import "@lora-loom/merge";
import "@lora-loom/model";
import {
  allKernels,
  type DeviceChoice,
  type GpuDevice,
  type Kernel,
  openDevice,
  TensorError,
} from "@lora-loom/tensor";

/** What one kernel cost, in seconds of the processor. */
interface CompileTime {
  readonly kernel: string;
  /** Making the pipeline. */
  readonly translate: number;
  /** The first dispatch, less what a second one takes. */
  readonly generate: number;
}

const REPEATS = 3;

/** Kernels that only hardware runs, by parts of their names: what comes anew is measured until it is listed here. */
const HARDWARE_ONLY =
  /_tiled(_\d|$)|matrix_units|^pack_|workgroup_per|_by_vec4f$|_block_256$|^cholesky_(panel|row)|^exact_|^iteris_(error_squares|sum)/;
/** Kernels that only software drivers run. */
const SOFTWARE_ONLY = /invocation_per|_by_f32$|_lanes_|_registers_|_serial$|^transpose_direct/;
/** Those of software drivers whose subgroups are not as wide as the lane kernels take them. */
const WITHOUT_LANES = /_registers_/;

function isUsed(name: string, { info, limits }: GpuDevice): boolean {
  if (info.class !== "software") return !SOFTWARE_ONLY.test(name);
  return !HARDWARE_ONLY.test(name) && !(WITHOUT_LANES.test(name) && limits.subgroupSize === 8);
}

function total({ translate, generate }: CompileTime): number {
  return translate + generate;
}

/** Seconds of the processor that `work` took, on all threads. */
async function processorSeconds(work: () => void | Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

/** Dispatches a kernel over no work: all its parameters are zero, and its buffers are. */
async function dispatchOverNothing(device: GpuDevice, kernel: Kernel): Promise<void> {
  // Enough for what a kernel reads whole before it looks at its parameters.
  const tensors = kernel.buffers.map(() => device.zeros([4096], "u32"));
  device.dispatch(kernel, tensors, kernel.params.map(() => 0), [1]);
  await device.finish();
  for (const tensor of tensors) tensor.dispose();
}

/** The same kernel as one that the driver has not seen: its code ends in another comment. */
function unseen(kernel: Kernel, time: number): Kernel {
  return { ...kernel, code: `${kernel.code}\n// ${time}` };
}

/** The quickest of several times; undefined where the adapter cannot run the kernel. */
async function least(device: GpuDevice, kernel: Kernel): Promise<CompileTime | undefined> {
  let best: CompileTime | undefined;
  for (let time = 0; time < REPEATS; time++) {
    const found = await measure(device, unseen(kernel, time));
    if (!found) return undefined;
    if (!best || total(found) < total(best)) best = found;
  }
  return best;
}

/** The two parts of compiling a kernel; undefined where the adapter cannot run it. */
async function measure(device: GpuDevice, kernel: Kernel): Promise<CompileTime | undefined> {
  try {
    const translate = await processorSeconds(() => device.compile([kernel]));
    const first = await processorSeconds(() => dispatchOverNothing(device, kernel));
    const second = await processorSeconds(() => dispatchOverNothing(device, kernel));
    return { kernel: kernel.name, translate, generate: Math.max(0, first - second) };
  } catch (error) {
    if (error instanceof TensorError && error.code === "kernel_unsupported") return undefined;
    throw error;
  }
}

const flags = parseArgs(Deno.args, {
  string: ["device", "only", "least", "bar"],
  boolean: ["json", "all"],
  default: { device: "auto", only: ".", least: "0.05", bar: "0.2" },
});
await using device = await openDevice({ device: flags.device as DeviceChoice });
if (device.info.backend !== "webgpu") throw new Error("the CPU compiles no kernels; see `deno task doctor`");
const wanted = new Set(
  [...allKernels().values()].flat().filter(({ name }) =>
    new RegExp(flags.only).test(name) && (flags.all || isUsed(name, device as GpuDevice))
  ),
);
const times: CompileTime[] = [];
for (const kernel of wanted) {
  const time = await least(device as GpuDevice, kernel);
  if (time) times.push(time);
}
times.sort((a, b) => total(b) - total(a));
if (flags.json) {
  console.log(JSON.stringify({ device: device.info, times }, null, 2));
} else {
  console.log(`${device.info.name}, class ${device.info.class}, ${device.info.driver}\n`);
  console.log("kernel".padEnd(48), "translate".padStart(10), "generate".padStart(9), "sum, s".padStart(8));
  for (const time of times.filter((time) => total(time) >= Number(flags.least))) {
    console.log(
      time.kernel.padEnd(48),
      time.translate.toFixed(3).padStart(10),
      time.generate.toFixed(3).padStart(9),
      total(time).toFixed(3).padStart(8),
    );
  }
  const over = times.filter((time) => total(time) >= Number(flags.bar));
  console.log(
    `\n${times.length} kernels, ${times.reduce((sum, time) => sum + total(time), 0).toFixed(1)} s in all\n` +
      (over.length === 0
        ? `pass: all below ${flags.bar} s`
        : `fail: ${over.length} not below ${flags.bar} s`),
  );
}
