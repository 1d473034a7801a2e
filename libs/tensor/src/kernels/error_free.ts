/**
 * WGSL functions that return a result together with its rounding error. Compilers may rearrange floating-point sums, so every
 * intermediate result passes through an exclusive-or with a zero that only the caller knows: a kernel that uses these has a
 * parameter `zero: u32`, which is 0.
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
`;
