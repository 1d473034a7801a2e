import { assertEquals } from "@std/assert";
import { firstNonFinite } from "./finite.ts";

/** Bit patterns of −∞ and of a NaN in each type, and of the largest finite number. */
const PATTERNS = {
  f32: { type: Uint32Array, infinity: 0xff800000, nan: 0x7fc00001, largest: 0x7f7fffff },
  f16: { type: Uint16Array, infinity: 0xfc00, nan: 0x7e01, largest: 0x7bff },
  bf16: { type: Uint16Array, infinity: 0xff80, nan: 0x7fc1, largest: 0x7f7f },
} as const;

for (const [dtype, { type, infinity, nan, largest }] of Object.entries(PATTERNS)) {
  Deno.test(`firstNonFinite() finds NaN and infinity in ${dtype} by their bits, wherever the bytes start`, () => {
    for (const bad of [infinity, nan]) {
      const words = new type([0, largest, 1, bad, 0, bad]);
      const bytes = new Uint8Array(words.buffer);
      const shifted = new Uint8Array(bytes.length + 1);
      shifted.set(bytes, 1);
      const found = [bytes, shifted.subarray(1)].map((view) =>
        firstNonFinite(view, dtype as keyof typeof PATTERNS)
      );
      assertEquals(found, [3, 3]);
    }
    assertEquals(
      firstNonFinite(new Uint8Array(new type([0, largest, 1]).buffer), dtype as keyof typeof PATTERNS),
      -1,
    );
  });
}
