import { foldGrid, type GpuDevice } from "@lora-loom/tensor";

/** Invocations per workgroup of elementwise kernels. */
export const LANES = 64;

/** Workgroup counts for `count` units of work, `perGroup` to a workgroup. */
export function grid(count: number, perGroup = 1): [number, number] {
  return foldGrid(Math.ceil(count / perGroup));
}

/** WGSL: the start of an entry point with one invocation per unit of `params.count`; `i` is its index. */
export const FOR_EACH_ELEMENT = /* wgsl */ `
@compute @workgroup_size(${LANES})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * ${LANES}u + lane;
  if (i >= params.count) { return; }`;

/** WGSL: the start of an entry point with one workgroup of `lanes` invocations per unit of `params.count`. */
export function forEachGroup(lanes: number): string {
  return /* wgsl */ `
@compute @workgroup_size(${lanes})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group.y * groups.x + group.x;
  if (i >= params.count) { return; }`;
}

/**
 * WGSL: reduces what each of `lanes` invocations has just put into its element of the workgroup array `parts`, to `parts[0]`, by a fixed
 * tree. All invocations may read it afterwards.
 */
export function reduceLanes(
  parts: string,
  lanes: number,
  combine = (left: string, right: string) => `${left} + ${right}`,
): string {
  return /* wgsl */ `
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { ${parts}[lane] = ${combine(`${parts}[lane]`, `${parts}[lane + half]`)}; }
  }
  workgroupBarrier();`;
}

/** What works on a row: one invocation, the right grain for drivers that run invocations as SIMD lanes of a CPU, or a workgroup. */
export type Grain = "invocation" | "workgroup";

/** The grain that suits a device. */
export function grainOf({ info }: GpuDevice): Grain {
  return info.class === "software" ? "invocation" : "workgroup";
}
