import type { Kernel } from "../gpu/kernel.ts";

/**
 * A number x of magnitude at most 1 is cut into slices: 2⁻⁹ (x₀ + 2⁻¹⁰ (x₁ + 2⁻¹⁰ (x₂ + x₃))) with integers x₀, x₁ and x₂ of magnitude at most 2⁹
 * and what is left, x₃. Products of such integers are at most 2¹⁸: f32 sums of three times `EXACT_RUN` of them are exact, in whichever
 * order a compiler adds them, and 32-bit integers hold three times `LONGEST_EXACT_SUM`.
 */
export const UNIT = 2 ** 9;
/** The unit of each slice over that of the next. */
export const SLICE = 2 ** 10;

/** The power of two above a magnitude that is given as bits, 1 for zero; and what multiplies by the inverse of a power of two. */
export const POWER_ABOVE = /* wgsl */ `
fn powerAbove(bits: u32) -> f32 {
  let exponent = (bits >> 23u) & 0xffu;
  return select(bitcast<f32>(min(exponent + 1u, 253u) << 23u), 1.0, exponent == 0u);
}
fn reciprocal(power: f32) -> f32 { return bitcast<f32>((254u << 23u) - bitcast<u32>(power)); }`;

/** Lanes that slice a row together. */
const SLICE_LANES = 256;

/**
 * Cuts rows of high + low into slices after dividing them by a power of two, a workgroup a row; before that it scales column k by the power
 * of two above `bounds[k]`. The powers of two that rows are to be multiplied by go to `scales`.
 */
export const SLICE_ROWS: Kernel = {
  name: "exact_slice_rows",
  buffers: [
    { name: "high", element: "f32", access: "read" },
    { name: "low", element: "f32", access: "read" },
    { name: "bounds", element: "u32", access: "read" },
    { name: "sliced", element: "vec4f", access: "read_write" },
    { name: "scales", element: "f32", access: "read_write" },
  ],
  params: [["rows", "u32"], ["n", "u32"], ["firstRow", "u32"]],
  requires: { workgroupStorageBytes: 4 * SLICE_LANES, invocationsPerWorkgroup: SLICE_LANES },
  code: /* wgsl */ `
var<workgroup> largest: array<f32, ${SLICE_LANES}>;
${POWER_ABOVE}
@compute @workgroup_size(${SLICE_LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = (params.firstRow + group.x) * params.n;
  var found = 0.0;
  for (var k = lane; k < params.n; k += ${SLICE_LANES}u) {
    found = max(found, abs(high[start + k] * powerAbove(bounds[k])));
  }
  largest[lane] = found;
  workgroupBarrier();
  for (var half = ${SLICE_LANES / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { largest[lane] = max(largest[lane], largest[lane + half]); }
    workgroupBarrier();
  }
  let scale = powerAbove(bitcast<u32>(largest[0]));
  let up = ${UNIT}.0 * reciprocal(scale);
  for (var k = lane; k < params.n; k += ${SLICE_LANES}u) {
    let factor = powerAbove(bounds[k]) * up;
    let x = high[start + k] * factor;
    let first = round(x);
    let rest = (x - first) * ${SLICE}.0;
    let second = round(rest);
    let last = (rest - second) * ${SLICE}.0;
    let third = round(last);
    let left = (last - third) + low[start + k] * factor * ${SLICE ** 2}.0;
    sliced[group.x * params.n + k] = vec4f(first, second, third, left);
  }
  if (lane == 0u) { scales[group.x] = scale; }
}`,
};
