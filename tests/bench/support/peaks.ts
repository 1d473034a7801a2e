import { copy, type Device, type GpuDevice, type Kernel } from "@lora-loom/tensor";

/** What a device does at most, measured. */
export interface Peaks {
  /** TFLOP/s of f32 multiply-adds that need no memory. */
  readonly f32: number;
  /** GB/s that are read and written while copying. */
  readonly memory: number;
}

const WORKGROUP = 64;
/** Independent chains of an invocation: enough to hide how long one multiply-add takes. */
const CHAINS = 8;

const MULTIPLY_ADDS: Kernel = {
  name: "bench_multiply_adds",
  buffers: [{ name: "out", element: "f32", access: "read_write" }],
  params: [["turns", "u32"], ["factor", "f32"], ["term", "f32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let factor = vec4f(params.factor);
  let term = vec4f(params.term);
  ${chains((i) => `var x${i} = vec4f(f32(id.x + ${i}u));`)}
  for (var turn = 0u; turn < params.turns; turn++) {
    ${chains((i) => `x${i} = fma(x${i}, factor, term);`)}
  }
  let sum = ${Array.from({ length: CHAINS }, (_, i) => `x${i}`).join(" + ")};
  out[id.x] = sum.x + sum.y + sum.z + sum.w;
}`,
};

function chains(line: (index: number) => string): string {
  return Array.from({ length: CHAINS }, (_, index) => line(index)).join("\n  ");
}

async function fastest(device: Device, run: () => void): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < 8; i++) {
    const start = performance.now();
    run();
    await device.finish();
    best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best;
}

/** Measures the peaks of a device; where there is no GPU, both are zero: there is nothing to measure with. */
export async function measurePeaks(device: Device): Promise<Peaks> {
  if (device.info.backend !== "webgpu") return { f32: 0, memory: 0 };
  const hardware = device.info.class !== "software";
  const gpu = device as GpuDevice;
  const [invocations, turns] = hardware ? [2 ** 20, 2 ** 11] : [2 ** 12, 2 ** 11];
  using out = device.zeros([invocations]);
  const arithmetic = await fastest(
    device,
    () => gpu.dispatch(MULTIPLY_ADDS, [out], [turns, 0.5, 1], [invocations / WORKGROUP]),
  );
  const bytes = hardware ? 2 ** 30 : 2 ** 26;
  using source = device.zeros([bytes / 4]);
  const copying = await fastest(device, () => copy(source).dispose());
  return {
    f32: 2 * 4 * CHAINS * invocations * turns / arithmetic / 1e12,
    memory: 2 * bytes / copying / 1e9,
  };
}
