import { type Rows, zeroRows } from "./rows.ts";
import { threefry } from "./threefry.ts";

/** Rows of standard normal numbers (Box–Muller over Threefry), the same for the same seed. */
export function gaussianRows(count: number, length: number, seed: number): Rows {
  const out = zeroRows(count, length);
  const words = new Uint32Array(2);
  const key = [seed % 2 ** 32, 0x6e6f726d] as const;
  for (let i = 0; i < out.data.length; i++) {
    threefry(key, i % 2 ** 32, Math.floor(i / 2 ** 32), words);
    const radius = Math.sqrt(-2 * Math.log((words[0]! + 1) / 2 ** 32));
    out.data[i] = radius * Math.cos(2 * Math.PI * words[1]! / 2 ** 32);
  }
  return out;
}
