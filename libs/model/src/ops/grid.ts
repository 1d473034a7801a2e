const MAX_WORKGROUPS = 65535;

/**
 * Workgroup counts for `count` units of work, `perGroup` to a workgroup, spread over two axes where one is too short.
 * Kernels recover the linear index from `workgroup_id` and `num_workgroups`, and ignore what is past the end.
 */
export function grid(count: number, perGroup = 1): readonly [number, number] {
  const groups = Math.ceil(count / perGroup);
  const rows = Math.max(1, Math.ceil(groups / MAX_WORKGROUPS));
  return [Math.ceil(groups / rows), rows];
}

/** Invocations per workgroup of elementwise kernels. */
export const LANES = 64;

/** WGSL: the start of an entry point with one invocation per element of `params.count`; `i` is its index. */
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
