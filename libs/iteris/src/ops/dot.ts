import { type CpuTensor, defineOperation, elementCount, type Kernel, type Tensor } from "@lora-loom/tensor";

const NAME = "iteris_dot";
const WORKGROUP = 256;
/** Elements that a workgroup takes at least, and workgroups at most: enough of them to use all of a GPU's bandwidth. */
const PER_WORKGROUP = 4096;
const MOST_WORKGROUPS = 2048;

/** WGSL that adds up `sum` of all invocations of a workgroup, in `sums[0]`. */
const REDUCE = /* wgsl */ `
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = ${WORKGROUP / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] += sums[lane + half]; }
    workgroupBarrier();
  }`;

const DOT: Kernel = {
  name: NAME,
  buffers: [
    { name: "x", element: "f32", access: "read" },
    { name: "y", element: "f32", access: "read" },
    { name: "parts", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"], ["first", "u32"]],
  code: /* wgsl */ `
var<workgroup> sums: array<f32, ${WORKGROUP}>;
@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  var sum = 0.0;
  for (var i = group.x * ${WORKGROUP}u + lane; i < params.count; i += groups.x * ${WORKGROUP}u) {
    sum = fma(x[i], y[i], sum);
  }
  ${REDUCE}
  if (lane == 0u) { parts[params.first + group.x] = sums[0]; }
}`,
};

const SUM: Kernel = {
  name: "iteris_sum",
  buffers: [
    { name: "parts", element: "f32", access: "read" },
    { name: "total", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  code: /* wgsl */ `
var<workgroup> sums: array<f32, ${WORKGROUP}>;
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < params.count; i += ${WORKGROUP}u) { sum += parts[i]; }
  ${REDUCE}
  if (lane == 0u) { total[0] = sums[0]; }
}`,
};

/** ⟨x, y⟩ = Σ x ∘ y of two tensors of one shape, `[1]`. */
export const dot: (x: Tensor, y: Tensor) => Tensor = defineOperation<[Tensor, Tensor], Tensor>({
  name: NAME,
  kernels: [DOT, SUM],
  gpu(device, x, y) {
    const count = elementCount(x.shape);
    // Windows of a tensor begin at multiples of 256 bytes.
    const step = Math.floor(device.limits.maxBindingBytes / 256) * 64;
    const groups = (start: number) =>
      Math.min(MOST_WORKGROUPS, Math.ceil(Math.min(step, count - start) / PER_WORKGROUP));
    const starts = Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
    const parts = starts.reduce((sum, start) => sum + groups(start), 0);
    using sums = device.empty([Math.max(parts, 1)]);
    let first = 0;
    for (const start of starts) {
      const end = Math.min(start + step, count);
      const windows = [x, y].map((tensor) => ({ tensor, start, end }));
      device.dispatch(DOT, [...windows, sums], [end - start, first], [groups(start)]);
      first += groups(start);
    }
    const total = device.empty([1]);
    device.dispatch(SUM, [sums, total], [parts], [1]);
    return total;
  },
  cpu(device, x, y) {
    const factors = (y as CpuTensor).floats;
    const sum = (x as CpuTensor).floats.reduce((total, value, i) => total + value * factors[i]!, 0);
    return device.wrap(Float64Array.of(sum), [1]);
  },
});
