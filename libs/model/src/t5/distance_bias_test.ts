import { assertEquals } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import type { T5Config } from "./config.ts";
import { DistanceBiases, distanceBucket } from "./distance_bias.ts";

const SIZES = { distanceBuckets: 32, maxDistance: 128 };

/** Where buckets begin, as Transformers 5.23 has them: `[distance, bucket]`. Boundaries such as 16 lie between two of them. */
const BIDIRECTIONAL = [
  [-200, 15],
  [-90, 14],
  [-63, 13],
  [-45, 12],
  [-31, 11],
  [-22, 10],
  [-15, 9],
  [-11, 8],
  [-7, 7],
  [-1, 1],
  [0, 0],
  [1, 17],
  [7, 23],
  [8, 24],
  [12, 25],
  [16, 26],
  [23, 27],
  [32, 28],
  [46, 29],
  [64, 30],
  [91, 31],
] as const;
const CAUSAL = [
  [0, 0],
  [15, 15],
  [16, 16],
  [19, 17],
  [21, 18],
  [24, 19],
  [27, 20],
  [31, 21],
  [35, 22],
  [40, 23],
  [46, 24],
  [52, 25],
  [59, 26],
  [67, 27],
  [77, 28],
  [87, 29],
  [99, 30],
  [113, 31],
] as const;

Deno.test("distanceBucket() changes buckets where Transformers does, in both directions", () => {
  for (const [index, [from, bucket]] of BIDIRECTIONAL.entries()) {
    assertEquals(distanceBucket(from, true, SIZES), bucket, `${from}`);
    const next = BIDIRECTIONAL[index + 1];
    // Near zero every distance has a bucket of its own, so there is nothing between.
    if (next && Math.abs(from) > 7) {
      assertEquals(distanceBucket(next[0] - 1, true, SIZES), bucket, `${next[0] - 1}`);
    }
  }
  assertEquals(distanceBucket(100000, true, SIZES), 31);
});

Deno.test("distanceBucket() changes buckets where Transformers does, looking back only", () => {
  for (const [index, [from, bucket]] of CAUSAL.entries()) {
    assertEquals(distanceBucket(-from, false, SIZES), bucket, `${from}`);
    const next = CAUSAL[index + 1];
    if (next && from >= 15) assertEquals(distanceBucket(1 - next[0], false, SIZES), bucket, `${next[0] - 1}`);
  }
  assertEquals(distanceBucket(5, false, SIZES), 0, "what lies ahead is not told apart");
});

Deno.test("DistanceBiases keeps its biases when a longer sequence makes it grow", async () => {
  await using device = new CpuDevice();
  const config = { ...SIZES } as T5Config;
  const weights = device.upload(Float32Array.from({ length: 64 }, (_, i) => i), [32, 2]);
  using biases = new DistanceBiases(device, config, weights, true);
  const biasOf = async (query: number, key: number, longest: number) => {
    const { table, origins } = biases.at(Uint32Array.of(query), longest);
    const [origin] = await device.download(origins);
    origins.dispose();
    return (await device.download(table))[2 * (origin! + key) + 1];
  };
  assertEquals(await biasOf(3, 10, 20), 2 * 23 + 1);
  assertEquals(await biasOf(300, 100, 301), 2 * 15 + 1);
  assertEquals(await biasOf(3, 10, 20), 2 * 23 + 1);
});
