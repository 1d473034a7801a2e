import type { Kernel } from "../gpu/kernel.ts";
import type { DType } from "../tensor.ts";

/** Casts there is a kernel for. */
export const CASTS: readonly (readonly [from: DType, to: DType])[] = [
  ["f32", "f16"],
  ["f32", "bf16"],
  ["f16", "f32"],
  ["f16", "bf16"],
  ["bf16", "f32"],
  ["bf16", "f16"],
  ["u32", "f32"],
  ["f32", "u32"],
];

/**
 * Decoders from the bits of an element to those of an f32, and encoders back. All in integers: a driver may round, flush
 * subnormals or lose NaNs as it likes in float arithmetic, and `pack2x16float` leaves the rounding open.
 */
const DECODE: Readonly<Record<DType, string>> = {
  f32: "return bits;",
  bf16: "return bits << 16u;",
  u32: "return bitcast<u32>(f32(bits));",
  f16: /* wgsl */ `
  let sign = (bits & 0x8000u) << 16u;
  let exponent = (bits >> 10u) & 0x1fu;
  let fraction = bits & 0x3ffu;
  if (exponent == 31u) { return sign | 0x7f800000u | (fraction << 13u); }
  if (exponent > 0u) { return sign | ((exponent + 112u) << 23u) | (fraction << 13u); }
  if (fraction == 0u) { return sign; }
  // A subnormal: its highest bit becomes the implicit one.
  let shift = countLeadingZeros(fraction) - 21u;
  return sign | ((113u - shift) << 23u) | (((fraction << shift) & 0x3ffu) << 13u);`,
};

const ENCODE: Readonly<Record<DType, string>> = {
  f32: "return bits;",
  u32: "return u32(bitcast<f32>(bits));",
  bf16: /* wgsl */ `
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;`,
  f16: /* wgsl */ `
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return sign | 0x7e00u | ((magnitude >> 13u) & 0x1ffu); }
  if (magnitude >= 0x47800000u) { return sign | 0x7c00u; }
  if (magnitude >= 0x38800000u) {
    // Normal: round off 13 bits; a carry moves into the exponent, and on to infinity, as it should.
    let rounded = magnitude + 0xfffu + ((magnitude >> 13u) & 1u);
    return sign | ((rounded >> 13u) - (112u << 10u));
  }
  // Subnormal, or too small for one: below 2^-25 everything becomes zero.
  if (magnitude < 0x33000000u) { return sign; }
  let shift = 126u - (magnitude >> 23u);
  let fraction = (magnitude & 0x7fffffu) | 0x800000u;
  let kept = fraction >> shift;
  let lost = fraction & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return sign | (kept + select(0u, 1u, lost > half || (lost == half && (kept & 1u) == 1u)));`,
};

function isPacked(dtype: DType): boolean {
  return dtype === "f16" || dtype === "bf16";
}

/** Converts two elements an invocation, so that packed types are read and written a word at a time. */
export function castKernel(from: DType, to: DType): Kernel {
  const read = isPacked(from)
    ? "let word = x[i]; let first = decode(word & 0xffffu); let second = decode(word >> 16u);"
    : "let first = decode(x[2u * i]); var second = 0u; if (2u * i + 1u < params.count) { second = decode(x[2u * i + 1u]); }";
  const write = isPacked(to)
    ? "out[i] = encode(first) | (encode(second) << 16u);"
    : "out[2u * i] = encode(first); if (2u * i + 1u < params.count) { out[2u * i + 1u] = encode(second); }";
  return {
    name: `cast_${from}_${to}`,
    buffers: [
      { name: "x", element: "u32", access: "read" },
      { name: "out", element: "u32", access: "read_write" },
    ],
    params: [["count", "u32"]],
    code: /* wgsl */ `
fn decode(bits: u32) -> u32 { ${DECODE[from]} }
fn encode(bits: u32) -> u32 { ${ENCODE[to]} }

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.x + id.y * groups.x * 64u;
  if (2u * i >= params.count) { return; }
  ${read}
  ${write}
}`,
  };
}
