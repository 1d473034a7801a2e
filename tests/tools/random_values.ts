/** Seeded normal numbers in bulk: from a table, since a benchmark's gigabytes need not be independent to the last bit. */

const TABLE_SIZE = 1 << 16;

/** A generator of 32-bit integers (xorshift32). */
function integers(seed: number): () => number {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x85ebca6b) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function normalTable(seed: number): Float32Array {
  const next = integers(seed);
  const uniform = () => (next() + 0.5) / 2 ** 32;
  return Float32Array.from(
    { length: TABLE_SIZE },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

const TABLE = normalTable(1);

/** `count` numbers from N(0, deviation²), rounded to float16. */
export function normalHalves(count: number, deviation: number, seed: number): Uint8Array<ArrayBuffer> {
  const scaled = new Uint16Array(Float16Array.from(TABLE, (value) => deviation * value).buffer);
  return new Uint8Array(drawn(scaled, count, seed).buffer);
}

/** The same as bfloat16, cut rather than rounded. */
export function normalBfloats(count: number, deviation: number, seed: number): Uint16Array<ArrayBuffer> {
  const scaled = Float32Array.from(TABLE, (value) => deviation * value);
  return drawn(Uint16Array.from(new Uint32Array(scaled.buffer), (bits) => bits >>> 16), count, seed);
}

function drawn(table: Uint16Array, count: number, seed: number): Uint16Array<ArrayBuffer> {
  const next = integers(seed);
  const out = new Uint16Array(count);
  for (let i = 0; i < count; i++) out[i] = table[next() & (TABLE_SIZE - 1)]!;
  return out;
}
