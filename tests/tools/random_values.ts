/** Seeded normal numbers in bulk: from a table, since a benchmark's gigabytes need not be independent to the last bit. */
import { gaussians, seeded } from "@lora-loom/testing";

const TABLE_SIZE = 1 << 16;
const TABLE = gaussians(TABLE_SIZE, 1);

/** `count` numbers from N(0, deviation²), rounded to float16. */
export function normalHalves(count: number, deviation: number, seed: number): Uint8Array<ArrayBuffer> {
  const scaled = new Uint16Array(Float16Array.from(TABLE, (value: number) => deviation * value).buffer);
  const random = seeded(seed);
  const out = new Uint16Array(count);
  for (let i = 0; i < count; i++) out[i] = scaled[Math.floor(random() * TABLE_SIZE)]!;
  return new Uint8Array(out.buffer);
}
