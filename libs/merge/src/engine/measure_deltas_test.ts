import { assert, assertEquals } from "@std/assert";
import { type Device, openDevice } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import type { WeightedFactors } from "../methods/method.ts";
import type { DeltaFigures } from "../report/figures.ts";
import { measureDeltas, measureSum } from "./measure_deltas.ts";

const [IN, OUT] = [24, 18];
const RANKS = [3, 2];
const [SCALES, WEIGHTS] = [[2, 0.5], [1.5, -1]];

interface Plain {
  readonly a: Float64Array<ArrayBuffer>;
  readonly b: Float64Array<ArrayBuffer>;
  readonly rank: number;
}

const plain = (rank: number, seed: number): Plain => ({
  a: gaussians(rank * IN, seed),
  b: gaussians(OUT * rank, seed + 1),
  rank,
});
const PLAIN = RANKS.map((rank, index) => plain(rank, 10 * index));
const MERGED = plain(4, 99);

function dense({ a, b, rank }: Plain, factor: number): Float64Array {
  return Float64Array.from({ length: OUT * IN }, (_, index) => {
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += b[Math.floor(index / IN) * rank + r]! * a[r * IN + index % IN]!;
    return factor * sum;
  });
}

const dot = (x: Float64Array, y: Float64Array) => x.reduce((sum, value, index) => sum + value * y[index]!, 0);

function expected(merged: Float64Array): Omit<DeltaFigures, "bestSquares"> {
  const deltas = PLAIN.map((part, index) => dense(part, SCALES[index]!));
  const sum = deltas[0]!.map((_, i) =>
    deltas.reduce((total, delta, t) => total + WEIGHTS[t]! * delta[i]!, 0)
  );
  return {
    sources: deltas.map((delta, adapter) => ({
      adapter,
      squares: dot(delta, delta),
      inner: dot(merged, delta),
    })),
    between: deltas.map((left) => deltas.map((right) => dot(left, right))),
    squares: dot(merged, merged),
    sumSquares: dot(sum, sum),
    sumInner: dot(merged, sum),
  };
}

function upload(device: Device): WeightedFactors[] {
  return PLAIN.map(({ a, b, rank }, adapter) => ({
    a: device.upload(a, [rank, IN]),
    b: device.upload(b, [OUT, rank]),
    scale: SCALES[adapter]!,
    weight: WEIGHTS[adapter]!,
    adapter,
  }));
}

const numbers = ({ sources, between, squares, sumSquares, sumInner }: Omit<DeltaFigures, "bestSquares">) => [
  ...sources.flatMap((source) => [source.squares, source.inner]),
  ...between.flat(),
  squares,
  sumSquares,
  sumInner,
];

for (const [choice, tolerance] of [["cpu", 1e-12], ["software", 2e-6]] as const) {
  Deno.test(`measureDeltas() agrees with dense float64 deltas on the device ${choice}`, async () => {
    await using device = await openDevice({ device: choice });
    const merged = { a: device.upload(MERGED.a, [4, IN]), b: device.upload(MERGED.b, [OUT, 4]) };
    const figures = await measureDeltas(device, upload(device), merged);
    assertRelativelyClose(numbers(figures), numbers(expected(dense(MERGED, 1))), tolerance);
    assert(figures.bestSquares! < figures.sumSquares && figures.bestSquares! > 0.8 * figures.sumSquares);
  });

  Deno.test(`measureSum() describes the weighted sum itself on the device ${choice}`, async () => {
    await using device = await openDevice({ device: choice });
    const figures = await measureSum(device, upload(device));
    const sum = PLAIN.map((part, index) => dense(part, SCALES[index]! * WEIGHTS[index]!));
    const want = expected(sum[0]!.map((value, i) => value + sum[1]![i]!));
    assertRelativelyClose(numbers(figures), numbers(want), tolerance);
    assertEquals([figures.sumInner, figures.bestSquares], [figures.sumSquares, figures.sumSquares]);
  });
}
