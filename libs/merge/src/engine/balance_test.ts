import { assert, assertEquals } from "@std/assert";
import { frobeniusNorm, gaussians } from "@lora-loom/testing";
import { balance } from "./balance.ts";

Deno.test("balance() evens the norms out without changing a bit of the product", () => {
  const [rank, inFeatures, outFeatures] = [3, 5, 4];
  const scales = [1e-6, 1, 300];
  const a = Float32Array.from(
    gaussians(rank * inFeatures, 1),
    (value, index) => value * scales[Math.floor(index / inFeatures)]!,
  );
  const b = Float32Array.from(
    gaussians(outFeatures * rank, 2),
    (value, index) => value / scales[index % rank]!,
  );
  const [beforeA, beforeB] = [a.slice(), b.slice()];
  balance(a, b, rank);
  for (let r = 0; r < rank; r++) {
    const row = a.subarray(r * inFeatures, (r + 1) * inFeatures);
    const column = b.filter((_, index) => index % rank === r);
    const ratio = frobeniusNorm(row) / frobeniusNorm(column);
    assert(ratio > 0.49 && ratio < 2.01, `pair ${r}: ${ratio}`);
    for (let o = 0; o < outFeatures; o++) {
      for (let i = 0; i < inFeatures; i++) {
        const index = [o * rank + r, r * inFeatures + i] as const;
        assertEquals(b[index[0]]! * a[index[1]]!, beforeB[index[0]]! * beforeA[index[1]]!);
      }
    }
  }
});

Deno.test("balance() leaves pairs with a zero half alone", () => {
  const a = new Float32Array([0, 0, 8, 8]);
  const b = new Float32Array([1, 0, 1, 0]);
  balance(a, b, 2);
  assertEquals([[...a], [...b]], [[0, 0, 8, 8], [1, 0, 1, 0]]);
});
