import { MAX_WORKGROUPS } from "./limits.ts";

/**
 * Workgroup counts that cover `count` workgroups in a row, folded into a second axis where one is too short. The kernel
 * finds its place as `id.x + id.y * groups.x * size` and must check it against the end.
 */
export function foldGrid(count: number): [number, number] {
  if (count <= MAX_WORKGROUPS) return [count, 1];
  const rows = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / rows), rows];
}
