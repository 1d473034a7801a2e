/**
 * WGSL functions that return a result together with its rounding error. Compilers may rearrange floating-point sums, so every
 * intermediate result passes through an exclusive-or with a zero that only the caller knows: a kernel that uses these has a
 * parameter `zero: u32`, which is 0. The functions on vec4s do the same to four numbers at once.
 */
export const ERROR_FREE = /* wgsl */ `
struct Pair { high: f32, low: f32 }

fn guarded(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) ^ params.zero); }

/** a + b exactly, as high + low. */
fn two_sum(a: f32, b: f32) -> Pair {
  let sum = guarded(a + b);
  let part = guarded(sum - a);
  let low = guarded(a - guarded(sum - part)) + guarded(b - part);
  return Pair(sum, guarded(low));
}

/** The leading 12 bits of x: the product of two such numbers is exact. */
fn head(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u); }

struct Pairs { high: vec4f, low: vec4f }

fn guarded4(x: vec4f) -> vec4f { return bitcast<vec4f>(bitcast<vec4u>(x) ^ vec4u(params.zero)); }

fn two_sum4(a: vec4f, b: vec4f) -> Pairs {
  let sum = guarded4(a + b);
  let part = guarded4(sum - a);
  let low = guarded4(a - guarded4(sum - part)) + guarded4(b - part);
  return Pairs(sum, guarded4(low));
}

fn head4(x: vec4f) -> vec4f { return bitcast<vec4f>(bitcast<vec4u>(x) & vec4u(0xfffff000u)); }
`;
