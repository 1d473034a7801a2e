/**
 * Checks this library on the adapter that is there: what the adapter offers, every product kernel in every form, the library's
 * tests, and the speed of products. Meant for hardware that continuous integration does not have.
 *
 *     deno run -A libs/tensor/tests/gpu_check.ts [--device auto] [--quick]
 *
 * `--quick` leaves out the benchmark, and kernel families that a software driver takes minutes to compile. The table comes
 * last; the exit status is 1 when anything failed.
 */
import {
  cast,
  describeAdapters,
  type DeviceChoice,
  factorCholesky,
  gemm,
  gram,
  invertTriangular,
  kernelFamilies,
  openDevice,
  solveCholesky,
  solvePositiveDefinite,
  type Tensor,
} from "@lora-loom/tensor";
import { uniforms } from "@lora-loom/testing";
import { parseArgs } from "@std/cli/parse-args";
import { productCases, runProduct } from "../src/test_support/product_cases.ts";

/** A line of the table at the end. */
interface Row {
  readonly check: string;
  readonly passed: boolean;
  readonly detail: string;
}

const flags = parseArgs(Deno.args, { string: ["device"], boolean: ["quick"], default: { device: "auto" } });
const choice = flags.device as DeviceChoice;
const rows: Row[] = [];

function note(check: string, passed: boolean, detail: string): void {
  rows.push({ check, passed, detail });
  console.log(`${passed ? "ok" : "FAILED"}  ${check}: ${detail}`);
}

/** The largest error of a product in units of its bound 2√k·2⁻²⁴·Σ|a||b|; NaN counts as infinite. */
function errorInBounds(
  actual: ArrayLike<number>,
  [m, n, k]: readonly [number, number, number],
  left: (row: number, inner: number) => number,
  right: (inner: number, column: number) => number,
): number {
  let worst = 0;
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let [sum, magnitude] = [0, 0];
      for (let p = 0; p < k; p++) {
        const term = left(i, p) * right(p, j);
        sum += term;
        magnitude += Math.abs(term);
      }
      const error = Math.abs(actual[i * n + j]! - sum) /
        (2 * Math.sqrt(k) * 2 ** -24 * magnitude + 2 ** -24 * Math.abs(sum));
      worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
    }
  }
  return worst;
}

/** Whole tiles and cut ones, at aligned and odd sizes `[m, n, k]`. */
const SIZES = [[132, 260, 72], [131, 259, 71], [5, 300, 33]] as const;

/** Checks one family in all forms, with alpha and beta, weights, and scales huge and tiny. */
async function checkFamily(kernel: string): Promise<void> {
  await using device = await openDevice({ device: choice, poison: true });
  let worst = 0;
  const start = performance.now();
  for (const transposeA of [false, true]) {
    for (const transposeB of [false, true]) {
      for (const product of productCases(transposeA, transposeB, kernel, SIZES)) {
        const { actual, expected, magnitude } = await runProduct(device, product);
        const bound = 2 * Math.sqrt(product.a.columns + 1) * 2 ** -24;
        expected.forEach((value, i) => {
          const error = Math.abs(actual[i]! - value) / (bound * magnitude[i]! + 2 ** -24 * Math.abs(value));
          worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
        });
      }
    }
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  note(
    `gemm ${kernel}`,
    worst <= 1,
    `largest error ${worst.toFixed(3)} of its bound, ${seconds} s with compiling`,
  );
}

/** The float with the same first eight significant bits, which bfloat16 holds. */
function eightBits(value: number): number {
  const words = new Uint32Array(Float32Array.of(value).buffer);
  words[0]! &= 0xffff0000;
  return new Float32Array(words.buffer)[0]!;
}

/** How products on matrix units are asked for, and factors that they hold, so that one bound applies to all. */
const UNIT_PRODUCTS = [
  { name: "f32", precision: "f32", stored: "f32", keptA: Math.fround, keptB: Math.fround },
  { name: "f32, B in bf16", precision: "f32", stored: "bf16", keptA: Math.fround, keptB: eightBits },
  { name: "f16", precision: "f16", stored: "f32", keptA: Math.f16round, keptB: Math.f16round },
] as const;

/**
 * Checks the kernels for matrix units: all transposes, aligned and odd sizes, runs and slices of the inner index, both block sizes,
 * rows that are huge, tiny or zero, results that are added to, both precisions and 16-bit operands.
 */
async function checkMatrixUnits(): Promise<void> {
  await using device = await openDevice({ device: choice, poison: true });
  if (device.info.class !== "tensor") return note("matrix units", true, "none on this adapter");
  const sizes = [[132, 260, 1100], [131, 259, 1071], [5, 300, 33], [300, 64, 5000], [
    1300,
    3500,
    130,
  ]] as const;
  for (const { name, precision, stored, keptA, keptB } of UNIT_PRODUCTS) {
    let [worst, cases] = [0, 0];
    for (const [m, n, k] of sizes) {
      for (
        const [transposeA, transposeB] of [[false, false], [false, true], [true, false], [
          true,
          true,
        ]] as const
      ) {
        const exponents = (count: number, seed: number) =>
          Array.from({ length: count }, (_, i) => ((i * 37 + seed) % 7 - 3) * 9);
        const [ea, eb] = [exponents(m, 1), exponents(n, 2)];
        const [va, vb, vc] = [uniforms(m * k, 1), uniforms(k * n, 2), uniforms(m * n, 3)];
        const a = new Float32Array(m * k), b = new Float32Array(k * n);
        for (let i = 0; i < m; i++) {
          for (let p = 0; p < k; p++) {
            a[transposeA ? p * m + i : i * k + p] = i === 3 ? 0 : keptA(va[i * k + p]!) * 2 ** ea[i]!;
          }
        }
        for (let p = 0; p < k; p++) {
          for (let j = 0; j < n; j++) {
            b[transposeB ? j * k + p : p * n + j] = keptB(vb[p * n + j]!) * 2 ** eb[j]!;
          }
        }
        using left = device.upload(a, transposeA ? [k, m] : [m, k]);
        using wide = device.upload(b, transposeB ? [n, k] : [k, n]);
        using right = stored === "f32" ? wide : cast(wide, stored);
        using into = device.upload(vc, [m, n]);
        gemm(left, right, {
          transposeA,
          transposeB,
          kernel: "matrix_units",
          precision,
          alpha: -0.75,
          beta: 0.5,
          into,
        });
        const result = await device.download(into);
        for (let t = 0; t < 400; t++) {
          const [i, j] = [(t * 131) % m, (t * 577 + 3) % n];
          let [sum, magnitude] = [0.5 * vc[i * n + j]!, Math.abs(0.5 * vc[i * n + j]!)];
          for (let p = 0; p < k; p++) {
            const term = -0.75 * a[transposeA ? p * m + i : i * k + p]! *
              b[transposeB ? j * k + p : p * n + j]!;
            sum += term;
            magnitude += Math.abs(term);
          }
          const error = Math.abs(result[i * n + j]! - sum) / (2 * Math.sqrt(k) * 2 ** -24 * magnitude);
          worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
          cases++;
        }
      }
    }
    note(
      `matrix units, ${name}`,
      worst <= 1,
      `largest error ${worst.toFixed(3)} of its bound in ${cases} entries`,
    );
  }
}

/** Gram matrices at sizes that the adapter's own kernels take, weighted and split. */
async function checkGram(): Promise<void> {
  await using device = await openDevice({ device: choice, poison: true });
  for (
    const [count, d, of] of [[600, 700, "rows"], [700, 600, "columns"], [7, 9001, "rows"], [
      9001,
      9,
      "columns",
    ]] as const
  ) {
    const x = uniforms(count * d, 3);
    const weights = Float32Array.from({ length: count }, (_, i) => 0.5 + (i % 7));
    using stored = device.upload(x, [count, d]);
    using rowWeights = device.upload(weights, [count]);
    using result: Tensor = gram(stored, of === "rows" ? { of } : { of, rowWeights });
    const at = (i: number, p: number) =>
      of === "rows" ? x[i * d + p]! : x[p * d + i]! * Math.sqrt(weights[p]!);
    const [size, inner] = of === "rows" ? [count, d] : [d, count];
    const error = errorInBounds(await device.download(result), [size, size, inner], at, (p, j) => at(j, p));
    note(`gram of ${of}, [${count}, ${d}]`, error <= 1, `largest error ${error.toFixed(3)} of its bound`);
  }
}

/** Solves with matrices of many diagonal blocks, at an odd size and an aligned one: in f32, by the inverse of the factor, and to float64. */
async function checkSolves(): Promise<void> {
  await using device = await openDevice({ device: choice, poison: true });
  const m = 16;
  for (const n of [1537, 2304]) {
    using x = device.upload(uniforms(n * n, 4), [n, n]);
    const identity = new Float32Array(n * n);
    for (let i = 0; i < n; i++) identity[i * (n + 1)] = 1;
    using matrix = device.upload(identity, [n, n]);
    gram(x, { of: "columns", alpha: 1 / n, beta: 1, into: matrix });
    const b = uniforms(m * n, 5);
    using rows = device.upload(b, [m, n]);
    const a = await device.download(matrix);
    /** The largest error of 200 entries of x·A, relative to |x||A|. */
    const residualOf = (x: (i: number, k: number) => number) => {
      let worst = 0;
      for (let t = 0; t < 200; t++) {
        const [i, j] = [(t * 7919) % m, (t * 104729 + 11) % n];
        let [sum, magnitude] = [-b[i * n + j]!, 0];
        for (let k = 0; k < n; k++) {
          const term = x(i, k) * a[k * n + j]!;
          sum += term;
          magnitude += Math.abs(term);
        }
        worst = Math.max(worst, Number.isNaN(sum) ? Infinity : Math.abs(sum) / magnitude);
      }
      return worst;
    };
    const check = (name: string, error: number, bound: number) =>
      note(`${name}, ${n}`, error <= bound, `residual ${error.toExponential(1)}, at most ${bound}`);

    using factor = await factorCholesky(matrix);
    using solution = solveCholesky(factor, rows, { side: "right" });
    const single = await device.download(solution);
    check("solveCholesky", residualOf((i, k) => single[i * n + k]!), 1e-6);
    using inverse = invertTriangular(factor);
    using half = gemm(rows, inverse, { transposeB: true });
    using other = gemm(half, inverse);
    const byInverse = await device.download(other);
    check("invertTriangular", residualOf((i, k) => byInverse[i * n + k]!), 3e-6);
    using pair = await solvePositiveDefinite(matrix, rows);
    const [high, low] = [await device.download(pair.high), await device.download(pair.low)];
    check("solvePositiveDefinite", residualOf((i, k) => high[i * n + k]! + low[i * n + k]!), 2e-13);
  }
}

async function runProgram(name: string, args: readonly string[]): Promise<void> {
  const start = performance.now();
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    stdout: "inherit",
    stderr: "inherit",
  })
    .spawn().status;
  note(name, success, `${((performance.now() - start) / 1000).toFixed(1)} s`);
}

const report = await describeAdapters();
console.log(JSON.stringify(report, null, 2));
let name = "";
let software = true;
let subgroupSizes: readonly [number, number] = [0, 0];
{
  await using device = await openDevice({ device: choice });
  name = `${device.info.name}, class ${device.info.class}, ${device.info.driver}`;
  software = device.info.class === "software";
  subgroupSizes = report.adapters.find((adapter) => adapter.name === device.info.name)?.subgroupSizes ??
    [0, 0];
  note("device", device.info.backend === "webgpu", name);
}
const families = kernelFamilies().filter((family) =>
  !(software && flags.quick && /^tiled_(32|64|128)/.test(family)) &&
  !(family.startsWith("lanes_") && subgroupSizes.some((size) => size !== 8)) &&
  // These have checks of their own, whose bounds are those of matrix units.
  family !== "matrix_units"
);
for (const family of families) await checkFamily(family);
await checkMatrixUnits();
await checkGram();
await checkSolves();
const folder = new URL("..", import.meta.url).pathname;
await runProgram("tests of libs/tensor", ["test", "-A", `${folder}src`]);
if (!flags.quick) {
  await runProgram("benchmark, safe", [
    "run",
    "-A",
    `${folder}bench/products.ts`,
    "--device",
    choice,
    "--all",
  ]);
  await runProgram("benchmark, fast", [
    "run",
    "-A",
    `${folder}bench/products.ts`,
    "--device",
    choice,
    "--profile",
    "fast",
  ]);
}

console.log(`\n${name}\n`);
for (const { check, passed, detail } of rows) {
  console.log((passed ? "ok" : "FAILED").padEnd(7), check.padEnd(32), detail);
}
Deno.exit(rows.every(({ passed }) => passed) ? 0 : 1);
