/**
 * Matrix products and Gram matrices: GFLOP/s of each kernel family, errors, and ratios to plain TypeScript, measured in one run.
 *
 *     deno run -A libs/tensor/bench/products.ts [--device auto] [--profile safe] [--size 1024] [--all]
 *
 * Prints a table. `--all` runs every kernel family and not only the one that the device's table picks. Of each case the
 * best of several runs counts, since the machine may have other work.
 */
import {
  CpuDevice,
  type Device,
  type DeviceChoice,
  gemm,
  gram,
  openDevice,
  type Profile,
  type Tensor,
  TensorError,
} from "@lora-loom/tensor";
import { uniforms } from "@lora-loom/testing";
import { parseArgs } from "@std/cli/parse-args";

/** One case: what to run, and what it costs. */
interface Case {
  readonly name: string;
  readonly operations: number;
  readonly run: () => Tensor;
  /** Inner length of entry (0, 0), to check it. */
  readonly expected: number;
}

const KERNELS = [
  "tiled_192x128",
  "tiled_128",
  "tiled_64",
  "tiled_32",
  "registers_8x8",
  "registers_8x4",
  "lanes_16x32",
  "lanes_8x16",
];

/** Sum of products over two strided vectors, in float64. */
function dot(x: Float32Array, y: Float32Array, strideX: number, strideY: number, length: number): number {
  let sum = 0;
  for (let p = 0; p < length; p++) sum += x[p * strideX]! * y[p * strideY]!;
  return sum;
}

function productCases(device: Device, n: number, kernels: readonly string[]): Case[] {
  const host = uniforms(n * n, 1);
  const x = device.upload(host, [n, n]);
  const forms = [["nn", false, false], ["nt", false, true], ["tn", true, false], ["tt", true, true]] as const;
  return ["", ...kernels].flatMap((kernel) =>
    forms.map(([name, transposeA, transposeB]) => ({
      name: `gemm ${name} ${n}³ ${kernel}`.trim(),
      operations: 2 * n ** 3,
      run: () => gemm(x, x, { transposeA, transposeB, ...kernel ? { kernel } : {} }),
      expected: dot(host, host, transposeA ? n : 1, transposeB ? 1 : n, n),
    }))
  );
}

function gramCases(device: Device, shapes: readonly (readonly [number, number])[]): Case[] {
  return shapes.flatMap(([rows, columns]) => {
    const host = uniforms(rows * columns, 1);
    const x = device.upload(host, [rows, columns]);
    const cases: Case[] = [];
    // The result must stay of a size that makes sense: the shorter side's Gram matrix, or a square one.
    if (rows <= columns) {
      cases.push({
        name: `gram rows [${rows}, ${columns}]`,
        operations: rows * (rows + 1) * columns,
        run: () => gram(x, { of: "rows" }),
        expected: dot(host, host, 1, 1, columns),
      });
    }
    if (columns <= 4096) {
      cases.push({
        name: `gram columns [${rows}, ${columns}]`,
        operations: columns * (columns + 1) * rows,
        run: () => gram(x, { of: "columns" }),
        expected: dot(host, host, columns, columns, rows),
      });
    }
    return cases;
  });
}

function skinnyCases(device: Device, d: number): Case[] {
  return [8, 64, 320].map((rank) => {
    const [left, right] = [uniforms(d * rank, 1), uniforms(rank * d, 1)];
    const [a, b] = [device.upload(left, [d, rank]), device.upload(right, [rank, d])];
    return {
      name: `gemm nn B·A, d ${d}, rank ${rank}`,
      operations: 2 * d * d * rank,
      run: () => gemm(a, b),
      expected: dot(left, right, 1, d, rank),
    };
  });
}

/** Best seconds of several runs, and the error of entry (0, 0). */
async function measure(device: Device, { run, expected }: Case): Promise<{ seconds: number; error: number }> {
  let best = Infinity;
  let error = 0;
  for (let repeat = 0; repeat < 5; repeat++) {
    const start = performance.now();
    using result = run();
    await device.finish();
    best = Math.min(best, (performance.now() - start) / 1000);
    if (repeat === 0 && result.shape[0]! * result.shape[1]! <= 2 ** 24) {
      error = Math.abs((await device.download(result))[0]! - expected);
    }
  }
  return { seconds: best, error };
}

/** GFLOP/s of the float64 product in plain TypeScript. */
function plainSpeed(): number {
  const n = 192;
  const cpu = new CpuDevice();
  const x = cpu.upload(uniforms(n * n, 1), [n, n]);
  gemm(x, x).dispose();
  const start = performance.now();
  gemm(x, x).dispose();
  return 2 * n ** 3 / (performance.now() - start) / 1e6;
}

const flags = parseArgs(Deno.args, {
  string: ["device", "profile", "size"],
  boolean: ["all"],
  default: { device: "auto", profile: "safe" },
});
await using device = await openDevice({
  device: flags.device as DeviceChoice,
  profile: flags.profile as Profile,
});
const hardware = device.info.class === "tensor" || device.info.class === "gpu";
const size = Number(flags.size ?? (hardware ? 4096 : 512));
const plain = plainSpeed();
console.log(
  `${device.info.name}, class ${device.info.class}, ${device.info.driver}, profile ${flags.profile}`,
);
console.log(`plain TypeScript in float64: ${plain.toFixed(2)} GFLOP/s\n`);
console.log("case".padEnd(36), "GFLOP/s".padStart(10), "ratio".padStart(9), "error".padStart(10));
const cases = [
  ...productCases(device, size, flags.all ? KERNELS : []),
  ...productCases(device, size - 1, []),
  ...skinnyCases(device, hardware ? 4096 : 512),
  ...gramCases(
    device,
    hardware
      ? [[64, 28672], [320, 28672], [1000, 8192], [8192, 4096], [4096, 4096]]
      : [[64, 4096], [320, 2048], [1024, 256]],
  ),
];
for (const entry of cases) {
  const measured = await measure(device, entry).catch((error) => {
    if (error instanceof TensorError && error.code === "kernel_unsupported") return undefined;
    throw error;
  });
  if (!measured) continue;
  const { seconds, error } = measured;
  const speed = entry.operations / seconds / 1e9;
  console.log(
    entry.name.padEnd(36),
    speed.toFixed(1).padStart(10),
    `${(speed / plain).toFixed(1)}×`.padStart(9),
    error.toExponential(1).padStart(10),
  );
}
