import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { gemm } from "../ops/gemm.ts";
import { bucketOf, candidates, type ProductShape, variantOfTable } from "../ops/product_table.ts";
import type { ProductVariant } from "../ops/product_variants.ts";
import type { ProductChoices } from "./tuning_file.ts";

/** Sizes and form of a product that is to be tuned. */
export type TuningShape = Omit<ProductShape, "strideA">;

/** What {@linkcode tuneProducts} tells while it works. */
export interface TuningProgress {
  readonly bucket: string;
  /** Seconds of each variant. */
  readonly seconds: Readonly<Record<string, number>>;
  readonly table: string;
  readonly chosen: string;
}

/** Times variants, each given as what runs it once. */
export type Measure = (
  runs: Readonly<Record<string, () => void>>,
) => Promise<Readonly<Record<string, number>>>;

/** Options of {@linkcode tuneProducts}. */
export interface TuneOptions {
  /** Several of one bucket count as one. */
  readonly shapes: readonly TuningShape[];
  /** Seconds of one run of each variant. Default: the least of several that were measured. For tests. */
  readonly measure?: Measure;
  readonly onProgress?: (progress: TuningProgress) => void;
}

/** A variant has to be this much faster than the table's to be chosen: less may be chance. */
const WORTHWHILE = 0.9;

/** Rounds of measuring: the variants take turns, so that what else the machine does meets all of them. */
const ROUNDS = 8;

/** Seconds that a variant runs in a round, where it is quick. */
const TURN = 0.01;

/**
 * Measures every variant that a device offers for products of the given shapes, and gives the fastest of each bucket where it is not the
 * one that the table gives anyway. Other work on the device makes the choices worse, never wrong: every variant keeps the same bounds.
 *
 * @throws {TensorError} `no_gpu` on the CPU, which has no variants
 */
export async function tuneProducts(
  device: Device,
  { shapes, measure = measureOn(device), onProgress = () => {} }: TuneOptions,
): Promise<ProductChoices> {
  if (device.info.backend !== "webgpu") {
    throw new TensorError(
      "no_gpu",
      "the CPU has one way to compute a product",
      "tune a GPU or a software driver: see `deno task doctor`",
      "tuneProducts",
    );
  }
  const gpu = device as GpuDevice;
  const offered = candidates(gpu);
  const choices = new Map<string, string>();
  const buckets = new Map(shapes.map((shape) => [bucketOf({ ...shape, strideA: 0 }), shape]));
  for (const [bucket, shape] of buckets) {
    const { rows, columns, inner, transposeA, transposeB } = shape;
    using a = device.zeros(transposeA ? [inner, rows] : [rows, inner]);
    using b = device.zeros(transposeB ? [columns, inner] : [inner, columns]);
    using into = device.zeros([rows, columns]);
    const table = variantOfTable(gpu, { ...shape, strideA: a.shape[1]! }).name;
    const runs = offered.filter((variant) => isDistinct(variant, shape)).map(({ name }) =>
      [name, () => void gemm(a, b, { transposeA, transposeB, into, kernel: name })] as const
    );
    const seconds = await measure(Object.fromEntries(runs));
    const [fastest, least] = Object.entries(seconds).reduce((best, next) => next[1] < best[1] ? next : best);
    const chosen = least < WORTHWHILE * (seconds[table] ?? Infinity) ? fastest : table;
    if (chosen !== table) choices.set(bucket, chosen);
    onProgress({ bucket, seconds, table, chosen });
  }
  return choices;
}

/** False for a variant that copies operands which this form leaves alone: another one does the same. */
function isDistinct({ copies }: ProductVariant, { transposeA, transposeB }: TuningShape): boolean {
  return copies.every((operand) => operand === "a" ? !transposeA : transposeB);
}

/** Measures on a device: the least of several rounds, after one that compiles, with turns that are long enough for the clock. */
function measureOn(device: Device): Measure {
  const time = async (run: () => void, repeats: number) => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) run();
    await device.finish();
    return (performance.now() - start) / 1000 / repeats;
  };
  return async (runs) => {
    const best: Record<string, number> = {};
    for (const [name, run] of Object.entries(runs)) {
      await time(run, 1);
      best[name] = await time(run, 1);
    }
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, run] of Object.entries(runs)) {
        const repeats = Math.max(1, Math.min(64, Math.floor(TURN / best[name]!)));
        best[name] = Math.min(best[name]!, await time(run, repeats));
      }
    }
    return best;
  };
}

const FORMS = [[false, false], [false, true], [true, false], [true, true]] as const;

/**
 * Shapes that merging meets, for buckets of powers of two up to `largest`: square products, activations against weights, and the two factors
 * of an adapter against either.
 */
export function usualShapes(largest: number): TuningShape[] {
  const sizes: number[] = [];
  for (let size = 32; size <= largest; size *= 2) sizes.push(size);
  const ranks = [8, 16, 64].filter((rank) => rank < largest);
  const shapes = sizes.flatMap((size) => [
    [size, size, size],
    [largest, size, largest],
    [size, largest, largest],
    [largest, largest, size],
    ...ranks.flatMap((rank) => [[size, rank, size], [size, size, rank]]),
  ]) as [number, number, number][];
  // The middle of a bucket, a multiple of four: neither the size that is luckiest nor the one that is unluckiest.
  const middle = (size: number) => Math.max(4, Math.ceil(0.1875 * size) * 4);
  return shapes.flatMap(([rows, columns, inner]) =>
    FORMS.map(([transposeA, transposeB]) => ({
      rows: middle(rows),
      columns: middle(columns),
      inner: middle(inner),
      transposeA,
      transposeB,
    }))
  );
}
