/**
 * Linear algebra on the device: products, Gram matrices, factorisation, casts and transfers, each with its error and its speed.
 *
 *     deno run -A tests/bench/linear_algebra.ts [--device auto] [--profile safe] [--only REGEX] [--scale 1] [--json FILE]
 *
 * Medians of wall times that contain all a call does, packing and read-backs included, after warming up: clocks of idle GPUs are
 * low. `--scale 8` divides all sizes by eight, for software drivers. `bench/torch_peer.py` measures the same with PyTorch.
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
  type Tensor,
} from "@lora-loom/tensor";

/** One measurement. */
interface Case {
  readonly name: string;
  /** Floating-point operations, or bytes. */
  readonly amount: number;
  readonly unit: "TFLOP/s" | "GB/s";
  run(): Promise<Disposable | void> | Disposable | void;
  /** Error of the result in units of f32's roundoff, 2⁻²⁴, relative to the sum of magnitudes. */
  error?(result: Disposable): Promise<number>;
}

/** What came of one. */
interface Figure {
  readonly name: string;
  readonly milliseconds: number;
  readonly speed: number;
  readonly unit: string;
  readonly error: number | undefined;
}

const flags = parseArgs(Deno.args, {
  string: ["device", "profile", "only", "scale", "json"],
  default: { device: "auto", profile: "safe", only: ".", scale: "1" },
});
const scale = Number(flags.scale);
await using device = await openDevice({
  device: flags.device as DeviceChoice,
  profile: flags.profile as Profile,
});

/** Values in (-1, 1) with a long period. */
function values(count: number, seed: number): Float32Array<ArrayBuffer> {
  const result = new Float32Array(count);
  let state = seed;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    result[i] = state / 2 ** 31 - 1;
  }
  return result;
}

/** The identity matrix. */
function unit(n: number): Float32Array<ArrayBuffer> {
  const result = new Float32Array(n * n);
  for (let i = 0; i < n; i++) result[i * (n + 1)] = 1;
  return result;
}

/** Largest error of 200 entries of Σ_k left(i, k) right(k, j), by float64. */
async function entryError(
  on: Device,
  result: Tensor,
  inner: number,
  left: (i: number, k: number) => number,
  right: (k: number, j: number) => number,
): Promise<number> {
  const found = await on.download(result);
  const [m, n] = result.shape as [number, number];
  let worst = 0;
  for (let t = 0; t < 200; t++) {
    const [i, j] = [(t * 7919) % m, (t * 104729 + 11) % n];
    let [sum, magnitude] = [0, 0];
    for (let k = 0; k < inner; k++) {
      const term = left(i, k) * right(k, j);
      sum += term;
      magnitude += Math.abs(term);
    }
    worst = Math.max(worst, Math.abs(found[i * n + j]! - sum) / magnitude);
  }
  return worst * 2 ** 24;
}

function* products(n: number): Generator<Case> {
  const [x, y] = [values(n * n, 1), values(n * n, 2)];
  const left = device.upload(x, [n, n]);
  const right = device.upload(y, [n, n]);
  const into = device.zeros([n, n]);
  const exact = (result: Disposable) =>
    entryError(device, result as Tensor, n, (i, k) => x[i * n + k]!, (k, j) => y[k * n + j]!);
  const amount = 2 * n ** 3;
  const unit = "TFLOP/s";
  const result = (run: () => Tensor) => () => void run();
  const error = () => exact(into);
  yield { name: `gemm f32 ${n}³`, amount, unit, run: result(() => gemm(left, right, { into })), error };
  yield {
    name: `gemm f32 ${n}³, kernel without matrix units`,
    amount,
    unit,
    run: result(() =>
      gemm(left, right, { into, kernel: device.info.class === "software" ? "registers_8x8" : "tiled_128" })
    ),
    error,
  };
  for (const dtype of ["f16", "bf16"] as const) {
    const [low, lower] = [cast(left, dtype), cast(right, dtype)];
    yield {
      name: `gemm ${dtype} inputs ${n}³`,
      amount,
      unit,
      run: result(() => gemm(low, lower, { into })),
      error,
    };
    low.dispose();
    lower.dispose();
  }
  for (const tensor of [left, right, into]) tensor.dispose();
}

function* grams(rows: number, columns: number): Generator<Case> {
  const x = values(rows * columns, 3);
  using stored = device.upload(x, [rows, columns]);
  using into = device.zeros([columns, columns]);
  yield {
    name: `gram [${rows}, ${columns}] of columns`,
    amount: 2 * rows * columns * columns,
    unit: "TFLOP/s",
    run: () => void gram(stored, { of: "columns", into }),
    error: () => entryError(device, into, rows, (i, k) => x[k * columns + i]!, (k, j) => x[k * columns + j]!),
  };
}

function* factorisations(n: number, columns: number): Generator<Case> {
  using x = device.upload(values(n * n, 4), [n, n]);
  // Diagonally dominant enough to be far from singular.
  using identity = device.upload(unit(n), [n, n]);
  using matrix = gram(x, { of: "columns", alpha: 1 / n, beta: 1, into: identity });
  using rhs = device.upload(values(n * columns, 5), [n, columns]);
  yield {
    name: `cholesky + solve f32, ${n}, ${columns} right-hand sides`,
    amount: n ** 3 / 3 + 2 * n * n * columns,
    unit: "TFLOP/s",
    async run() {
      using factor = await factorCholesky(matrix);
      solveCholesky(factor, rhs).dispose();
    },
  };
}

function* movements(bytes: number): Generator<Case> {
  // Written once, so that the memory is really there.
  const host = new Uint8Array(bytes).fill(1);
  for (const dtype of ["f32", "f16"] as const satisfies DType[]) {
    const count = bytes / (dtype === "f32" ? 4 : 2);
    yield {
      name: `upload of ${bytes / 2 ** 20} MiB, ${dtype}`,
      amount: bytes,
      unit: "GB/s",
      run: () => device.uploadStreamed(host, [count], dtype),
    };
  }
  using tensor = device.zeros([bytes / 4]);
  yield {
    name: `download of ${bytes / 2 ** 20} MiB`,
    amount: bytes,
    unit: "GB/s",
    run: async () => void await device.downloadBytes(tensor, host),
  };
  yield {
    name: `download of ${bytes / 2 ** 20} MiB into a new array`,
    amount: bytes,
    unit: "GB/s",
    run: async () => void await device.downloadBytes(tensor),
  };
  yield {
    name: `cast f32 to bf16, ${bytes / 2 ** 20} MiB`,
    amount: 1.5 * bytes,
    unit: "GB/s",
    run: () => cast(tensor, "bf16"),
  };
}

function* cases(): Generator<Case> {
  for (const n of [1024, 4096, 8192]) yield* products(n / scale);
  for (const columns of [4096, 11008]) yield* grams(25600 / scale, columns / scale);
  yield* factorisations(8192 / scale, 32);
  yield* movements(2 ** 29 / scale ** 2);
}

/** Milliseconds of work before measuring: a GPU that was idle takes half a second to raise its clock. */
const WARM_UP = device.info.class === "software" ? 200 : 1500;

/** Seconds of one run, from batches that are long enough to measure. */
async function measure({ run }: Case): Promise<number> {
  const once = async (repeats: number) => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) (await run())?.[Symbol.dispose]();
    await device.finish();
    return (performance.now() - start) / 1000 / repeats;
  };
  let seconds = await once(1);
  const warmUntil = performance.now() + WARM_UP;
  while (performance.now() < warmUntil) {
    seconds = await once(Math.max(1, Math.min(50, Math.floor(0.1 / seconds))));
  }
  const repeats = Math.max(1, Math.min(50, Math.floor(0.05 / seconds)));
  const times: number[] = [];
  for (let i = 0; i < 5; i++) times.push(await once(repeats));
  return times.sort((a, b) => a - b)[2]!;
}

console.log(
  `${device.info.name}, class ${device.info.class}, ${device.info.driver}, profile ${flags.profile}\n`,
);
console.log("case".padEnd(52), "ms".padStart(10), "speed".padStart(9), "".padEnd(8), "error / 2⁻²⁴");
const figures: Figure[] = [];
for (const entry of cases()) {
  if (!new RegExp(flags.only).test(entry.name)) continue;
  const seconds = await measure(entry);
  using result = await entry.run() ?? undefined;
  const error = await entry.error?.(result!);
  const speed = entry.amount / seconds / (entry.unit === "GB/s" ? 1e9 : 1e12);
  figures.push({ name: entry.name, milliseconds: seconds * 1000, speed, unit: entry.unit, error });
  console.log(
    entry.name.padEnd(52),
    (seconds * 1000).toFixed(3).padStart(10),
    speed.toPrecision(4).padStart(9),
    entry.unit.padEnd(8),
    error?.toFixed(2) ?? "",
  );
}
if (flags.json) {
  await Deno.writeTextFile(
    flags.json,
    JSON.stringify({ device: device.info, profile: flags.profile, figures }, null, 2),
  );
}
