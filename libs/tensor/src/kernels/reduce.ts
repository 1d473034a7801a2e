/** WGSL that reductions have in common. */

/** Invocations that reduce together. */
export const REDUCE_WORKGROUP = 64;

/**
 * Magnitudes are compared as bit patterns: for floats without sign their order is that of the values, infinities and NaNs
 * come last and survive, and no driver can optimise the comparison away.
 */
export const MAGNITUDE = /* wgsl */ `
fn magnitude(bits: u32) -> u32 { return bits & 0x7fffffffu; }
`;

/** Scaling by a power of two near the largest magnitude keeps squares from overflowing or vanishing. */
export const SCALING = /* wgsl */ `
fn exponentOf(largest: u32) -> u32 { return clamp(largest >> 23u, 1u, 253u); }
fn scaleDown(exponent: u32) -> f32 { return bitcast<f32>((254u - exponent) << 23u); }
fn scaleUp(exponent: u32) -> f32 { return bitcast<f32>(exponent << 23u); }
`;

/**
 * Brings what the lanes left in `shared` together, by a tree. Compilers do not know from where `half` starts: software drivers unroll loops with
 * constant bounds, and take long to compile each of the barriers.
 *
 * @param count WGSL: how many numbers there are to reduce; nothing is done where there is none
 */
export function reduceTree(shared: string, count: string, combine: (a: string, b: string) => string): string {
  return /* wgsl */ `
  for (var half = min(${count}, 1u) * ${REDUCE_WORKGROUP / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { ${shared}[lane] = ${combine(`${shared}[lane]`, `${shared}[lane + half]`)}; }
    workgroupBarrier();
  }`;
}

/** How {@linkcode reduceTree} combines two numbers. */
export const MAX = (a: string, b: string) => `max(${a}, ${b})`;
/** The same, for sums. */
export const SUM = (a: string, b: string) => `${a} + ${b}`;
