import { foldGrid } from "@lora-loom/tensor";

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
