/**
 * Linear algebra on the device: products, Gram matrices, factorisation, casts and transfers, each with its error and its speed.
 *
 *     deno run -A tests/bench/linear_algebra.ts [--device auto] [--profile safe] [--only REGEX] [--scale N] [--json FILE]
 *
 * Medians of wall times that contain all a call does, packing and read-backs included, after warming up: clocks of idle GPUs are
 * low. `--scale 8` divides all sizes by eight, the default on software drivers. Errors are those of 200 entries against float64, on
 * the operands as they are stored. `bench/torch_peer.py` measures the same with PyTorch.
 */
import { parseArgs } from "@std/cli/parse-args";
import {
  cast,
  type Device,
  type DeviceChoice,
  type DType,
  factorCholesky,
  gemm,
  gram,
  openDevice,
  type Profile,
  solveCholesky,
  solvePositiveDefinite,
  type Tensor,
  transpose,
} from "@lora-loom/tensor";
import { uniforms } from "@lora-loom/testing";
import { measurePeaks } from "./support/peaks.ts";

/**
 * What limits a case: arithmetic in f32, in f16, in f32 done as three products of f16, or as two where one operand is stored in 16 bits, the
 * memory, or the link to the host.
 */
type Bound = "f32" | "f16" | "f32 in parts" | "f32 by 16 bits" | "memory" | "link";

/** One measurement. */
interface Case {
  readonly name: string;
  /** Floating-point operations, or bytes. */
  readonly amount: number;
  /** Part of them that has to be done: half where the result is symmetric. */
  readonly part?: number;
  readonly unit: "TFLOP/s" | "GB/s";
  readonly bound: Bound;
  run(): Promise<Disposable | void> | Disposable | void;
  /** The largest error of the result in units of f32's roundoff, 2⁻²⁴, relative to the sum of magnitudes; 0 where it is exact. */
  error(): Promise<number>;
}

/** What came of one. */
interface Figure {
  readonly name: string;
  readonly milliseconds: number;
  readonly speed: number;
  readonly unit: string;
  readonly bound: Bound;
  readonly part: number;
  readonly error: number;
}

const flags = parseArgs(Deno.args, {
  string: ["device", "profile", "only", "scale", "json"],
  default: { device: "auto", profile: "safe", only: "." },
});
await using device = await openDevice({
  device: flags.device as DeviceChoice,
  profile: flags.profile as Profile,
});
/** The same adapter as if it had no matrix units. */
await using withoutUnits = device.info.class === "tensor"
  ? await openDevice({
    device: flags.device as DeviceChoice,
    profile: flags.profile as Profile,
    assumeClass: "gpu",
  })
  : undefined;
const hardware = device.info.class === "tensor" || device.info.class === "gpu";
const scale = Number(flags.scale ?? (hardware ? 1 : 8));
/** Large products in f32 run on f16 matrix units where there are some. */
const F32_PRODUCTS: Bound = device.info.class === "tensor" ? "f32 in parts" : "f32";
const F32_BY_16_BITS: Bound = device.info.class === "tensor" ? "f32 by 16 bits" : "f32";

/** The identity matrix. */
function unit(n: number): Float32Array<ArrayBuffer> {
  const result = new Float32Array(n * n);
  for (let i = 0; i < n; i++) result[i * (n + 1)] = 1;
  return result;
}

/** Largest error of 200 entries, each a sum over `inner` terms, by float64. */
function entryError(
  found: ArrayLike<number>,
  [m, n]: readonly [number, number],
  inner: number,
  term: (i: number, j: number, k: number) => number,
): number {
  let worst = 0;
  for (let t = 0; t < 200; t++) {
    const [i, j] = [(t * 7919) % m, (t * 104729 + 11) % n];
    let [sum, magnitude] = [0, 0];
    for (let k = 0; k < inner; k++) {
      const value = term(i, j, k);
      sum += value;
      magnitude += Math.abs(value);
    }
    const error = Math.abs(found[i * n + j]! - sum) / magnitude;
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst * 2 ** 24;
}

async function productError(left: Tensor, right: Tensor, into: Tensor): Promise<number> {
  const [x, y, found] = [await read(left), await read(right), await read(into)];
  const [n] = into.shape as [number, number];
  return entryError(found, [n, n], n, (i, j, k) => x[i * n + k]! * y[k * n + j]!);
}

function read(tensor: Tensor): Promise<ArrayLike<number>> {
  return tensor.device.download(tensor);
}

/** An f32 product of random square matrices, the second stored in another type where asked. */
function* product(on: Device, name: string, n: number, bound: Bound, stored: DType = "f32"): Generator<Case> {
  using left = on.upload(uniforms(n * n, 1), [n, n]);
  using wide = on.upload(uniforms(n * n, 2), [n, n]);
  using right = cast(wide, stored);
  using into = on.zeros([n, n]);
  yield {
    name,
    amount: 2 * n ** 3,
    unit: "TFLOP/s",
    bound,
    run: () => void gemm(left, right, { into }),
    error: () => productError(left, right, into),
  };
}

function* products(n: number): Generator<Case> {
  yield* product(device, `gemm f32 ${n}³`, n, F32_PRODUCTS);
  yield* product(device, `gemm f32, B in bf16 ${n}³`, n, F32_BY_16_BITS, "bf16");
  if (withoutUnits) yield* product(withoutUnits, `gemm f32 ${n}³, kernel without matrix units`, n, "f32");
  using left = device.upload(uniforms(n * n, 1), [n, n]);
  using right = device.upload(uniforms(n * n, 2), [n, n]);
  using into = device.zeros([n, n]);
  const work = { amount: 2 * n ** 3, unit: "TFLOP/s" } as const;
  for (const dtype of ["f16", "bf16"] as const) {
    using low = cast(left, dtype);
    using lower = cast(right, dtype);
    yield {
      ...work,
      name: `gemm ${dtype} inputs ${n}³`,
      bound: device.info.class === "tensor" ? "f16" : "f32",
      run: () => void gemm(low, lower, { into }),
      error: () => productError(low, lower, into),
    };
  }
}

function* grams(rows: number, columns: number): Generator<Case> {
  const x = uniforms(rows * columns, 3);
  using stored = device.upload(x, [rows, columns]);
  using into = device.zeros([columns, columns]);
  yield {
    name: `gram [${rows}, ${columns}] of columns`,
    amount: 2 * rows * columns * columns,
    part: 0.5,
    unit: "TFLOP/s",
    bound: F32_PRODUCTS,
    run: () => void gram(stored, { of: "columns", into }),
    error: async () =>
      entryError(
        await device.download(into),
        [columns, columns],
        rows,
        (i, j, k) => x[k * columns + i]! * x[k * columns + j]!,
      ),
  };
}

function* factorisations(n: number, columns: number): Generator<Case> {
  using x = device.upload(uniforms(n * n, 4), [n, n]);
  // Diagonally dominant enough to be far from singular.
  using identity = device.upload(unit(n), [n, n]);
  using matrix = gram(x, { of: "columns", alpha: 1 / n, beta: 1, into: identity });
  const b = uniforms(n * columns, 5);
  using rhs = device.upload(b, [n, columns]);
  yield {
    name: `cholesky + solve f32, ${n}, ${columns} right-hand sides`,
    amount: n ** 3 / 3 + 2 * n * n * columns,
    unit: "TFLOP/s",
    bound: F32_PRODUCTS,
    async run() {
      using factor = await factorCholesky(matrix);
      solveCholesky(factor, rhs).dispose();
    },
    // Of A X, which ought to be B: the backward error.
    async error() {
      using factor = await factorCholesky(matrix);
      using solution = solveCholesky(factor, rhs);
      const [a, found] = [await device.download(matrix), await device.download(solution)];
      return entryError(b, [n, columns], n, (i, j, k) => a[i * n + k]! * found[k * columns + j]!);
    },
  };
  // The same right-hand sides; here, each is a row.
  using rows = transpose(rhs);
  yield {
    name: `cholesky + solve to a float64 residual, ${n}, ${columns} right-hand sides`,
    amount: n ** 3 / 3 + 2 * n * n * columns,
    unit: "TFLOP/s",
    bound: F32_PRODUCTS,
    run: async () => void (await solvePositiveDefinite(matrix, rows))[Symbol.dispose](),
    async error() {
      using solution = await solvePositiveDefinite(matrix, rows);
      const [a, goal] = [await device.download(matrix), await device.download(rows)];
      const [high, low] = [await device.download(solution.high), await device.download(solution.low)];
      const x = (i: number, k: number) => high[i * n + k]! + low[i * n + k]!;
      return entryError(goal, [columns, n], n, (i, j, k) => x(i, k) * a[k * n + j]!);
    },
  };
}

/** Zero when two arrays are the same, byte by byte. */
function difference(found: Uint8Array, expected: Uint8Array): number {
  return found.every((byte, i) => byte === expected[i]) ? 0 : Infinity;
}

function* movements(bytes: number): Generator<Case> {
  const size = `${bytes / 2 ** 20} MiB`;
  const values = uniforms(bytes / 4, 6);
  const host = new Uint8Array(values.buffer);
  const target = new Uint8Array(bytes).fill(1);
  const moved = { amount: bytes, unit: "GB/s", bound: "link" } as const;
  for (const dtype of ["f32", "f16"] as const) {
    const upload = () => device.uploadStreamed(host, [bytes / (dtype === "f32" ? 4 : 2)], dtype);
    yield {
      ...moved,
      name: `upload of ${size}, ${dtype}`,
      run: upload,
      async error() {
        using tensor = await upload();
        return difference(await device.downloadBytes(tensor), host);
      },
    };
  }
  using tensor = device.upload(values, [bytes / 4]);
  yield {
    ...moved,
    name: `download of ${size}`,
    run: async () => void await device.downloadBytes(tensor, target),
    error: () => Promise.resolve(difference(target, host)),
  };
  yield {
    ...moved,
    name: `download of ${size} into a new array`,
    run: async () => void await device.downloadBytes(tensor),
    error: async () => difference(await device.downloadBytes(tensor), host),
  };
  for (const dtype of ["f16", "bf16"] as const) {
    yield {
      name: `cast f32 to ${dtype}, ${size}`,
      amount: 1.5 * bytes,
      unit: "GB/s",
      bound: "memory",
      run: () => cast(tensor, dtype),
      error: () => castError(tensor, values, dtype),
    };
  }
}

/** Zero when every value was rounded to the nearest of `dtype`, ties to even. */
async function castError(tensor: Tensor, values: Float32Array, dtype: "f16" | "bf16"): Promise<number> {
  using low = cast(tensor, dtype);
  const found = await device.download(low);
  const nearest = dtype === "f16" ? Math.f16round : nearestBfloat16;
  return values.every((value, i) => found[i] === nearest(value)) ? 0 : Infinity;
}

/** The nearest number with eight significant bits, ties to even: in float64, by its place between powers of two. */
function nearestBfloat16(value: number): number {
  if (value === 0) return value;
  const step = 2 ** (Math.floor(Math.log2(Math.abs(value))) - 7);
  const [lower, rest] = [Math.floor(value / step), value / step - Math.floor(value / step)];
  return step * (rest > 0.5 || (rest === 0.5 && lower % 2 !== 0) ? lower + 1 : lower);
}

function* cases(): Generator<Case> {
  for (const n of [1024, 4096, 8192]) yield* products(n / scale);
  for (const columns of [4096, 11008]) yield* grams(25600 / scale, columns / scale);
  yield* factorisations(8192 / scale, 32);
  yield* movements(2 ** 29 / scale ** 2);
}

/** Milliseconds of work before measuring: a GPU that was idle takes half a second to raise its clock. */
const WARM_UP = hardware ? 1500 : 200;

/** Seconds of one run, from batches that are long enough to measure. */
async function measure({ run }: Case): Promise<number> {
  const once = async (repeats: number) => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) (await run())?.[Symbol.dispose]();
    await device.finish();
    await withoutUnits?.finish();
    return (performance.now() - start) / 1000 / repeats;
  };
  let seconds = await once(1);
  const warmUntil = performance.now() + WARM_UP;
  while (performance.now() < warmUntil) {
    seconds = await once(Math.max(1, Math.min(50, Math.floor(0.1 / seconds))));
  }
  const repeats = Math.max(1, Math.min(400, Math.floor(0.2 / seconds)));
  const times: number[] = [];
  for (let i = 0; i < 5; i++) times.push(await once(repeats));
  return times.sort((a, b) => a - b)[2]!;
}

async function figure(entry: Case): Promise<Figure> {
  const { name, amount, part = 1, unit, bound } = entry;
  const seconds = await measure(entry);
  const speed = amount / seconds / (unit === "GB/s" ? 1e9 : 1e12);
  return { name, milliseconds: seconds * 1000, speed, unit, bound, part, error: await entry.error() };
}

function describe(on: Device): string {
  return `${on.info.name}, class ${on.info.class}, ${on.info.driver}, profile ${flags.profile}`;
}

/** Of the first column. */
const WIDTH = 66;

/** Two decimals, or an exponent where they would show nothing. */
function errorOf({ error }: Figure): string {
  return error === 0 || error >= 0.01 ? error.toFixed(2) : error.toExponential(1);
}

console.log(`${describe(device)}\n`);
console.log("case".padEnd(WIDTH), "ms".padStart(10), "speed".padStart(9), "".padEnd(8), "error / 2⁻²⁴");
const figures: Figure[] = [];
for (const entry of cases()) {
  if (!new RegExp(flags.only).test(entry.name)) continue;
  const measured = await figure(entry);
  figures.push(measured);
  console.log(
    measured.name.padEnd(WIDTH),
    measured.milliseconds.toFixed(3).padStart(10),
    measured.speed.toPrecision(4).padStart(9),
    measured.unit.padEnd(8),
    errorOf(measured),
  );
}
const peaks = await measurePeaks(device);
console.log(
  `\npeaks: ${peaks.f32.toPrecision(3)} TFLOP/s of multiply-adds in f32, ${
    peaks.memory.toPrecision(3)
  } GB/s of copies`,
);
if (flags.json) {
  await Deno.writeTextFile(
    flags.json,
    JSON.stringify({ device: device.info, profile: flags.profile, peaks, figures }, null, 2),
  );
}
