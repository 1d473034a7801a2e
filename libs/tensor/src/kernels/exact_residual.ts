import type { Kernel } from "../gpu/kernel.ts";
import { ERROR_FREE } from "./error_free.ts";
import { POWER_ABOVE, SLICE, UNIT } from "./exact_slices.ts";
import { lines, range } from "./gemm_interface.ts";

/** target − (what the sums of all slices stand for) − (high + low)·diagonal, in pairs of f32 until everything has cancelled. */
export const EXACT_RESIDUAL: Kernel = {
  name: "exact_residual",
  buffers: [
    { name: "goal", element: "f32", access: "read" },
    { name: "high", element: "f32", access: "read" },
    { name: "low", element: "f32", access: "read" },
    { name: "diagonal", element: "f32", access: "read" },
    { name: "sums", element: "vec4u", access: "read" },
    { name: "scales", element: "f32", access: "read" },
    { name: "bounds", element: "u32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["m", "u32"], ["n", "u32"], ["slices", "u32"], ["firstRow", "u32"], ["zero", "u32"]],
  code: /* wgsl */ `
${POWER_ABOVE}
${ERROR_FREE}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  if (index >= params.m * params.n) { return; }
  let row = index / params.n;
  let column = index % params.n;
  // Sums of many slices exceed 32 bits, and f32 24: the upper parts of each sum and the lower 12 bits are added up apart.
  var upper = vec3i(0);
  var lower = vec3i(0);
  var rest = 0.0;
  for (var slice = 0u; slice < params.slices; slice++) {
    let sum = sums[slice * params.m * params.n + index];
    let exact = bitcast<vec3i>(sum.xyz);
    upper += exact >> vec3u(12u);
    lower += exact & vec3i(4095);
    rest += bitcast<f32>(sum.w);
  }
  let at = params.firstRow * params.n + index;
  let unit = scales[row] * powerAbove(bounds[column]) * ${1 / UNIT ** 2};
  let d = diagonal[column];
  let d_head = head(d);
  let d_tail = d - d_head;
  let x_head = head(high[at]);
  let x_tail = high[at] - x_head;
  let terms = array<f32, 10>(
    x_head * d_head,
    x_head * d_tail,
    x_tail * d_head,
    x_tail * d_tail,
    ${
    lines(
      range(3).flatMap((level) => [
        `f32(upper[${level}]) * (unit * ${4096 / SLICE ** level}),`,
        `f32(lower[${level}]) * (unit * ${1 / SLICE ** level}),`,
      ]),
    )
  }
  );
  var total = Pair(goal[at], 0.0);
  for (var i = 0u; i < 10u; i++) {
    let next = two_sum(total.high, -terms[i]);
    total = Pair(next.high, total.low + next.low);
  }
  result[at] = total.high + (total.low - (low[at] * d + rest * (unit * ${1 / SLICE ** 2})));
}`,
};
