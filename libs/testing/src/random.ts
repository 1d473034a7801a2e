/** A seeded generator of numbers in [0, 1) (mulberry32), so that a failing test fails again. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` standard normal numbers (Box–Muller). */
export function gaussians(count: number, seed: number): Float64Array<ArrayBuffer> {
  const random = seeded(seed);
  return Float64Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

/** `count` numbers spread evenly over [-1, 1). */
export function uniforms(count: number, seed: number): Float32Array<ArrayBuffer> {
  const random = seeded(seed);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = 2 * random() - 1;
  return values;
}
