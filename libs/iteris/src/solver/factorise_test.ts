import { assert, assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import type { Device } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { IterisError } from "../errors.ts";
import { testOnEachDevice, testOnGpu } from "../test_support/devices.ts";
import { fromFlat, solveRight } from "../test_support/oracle.ts";
import type { Conditioning } from "./factor.ts";
import { factorise, withFactor } from "./factorise.ts";

/** What a device can be held to. */
interface Precision {
  readonly conditioning: Conditioning;
  readonly backwardError: number;
  /** How far solutions may be from those of elimination. */
  readonly tolerance: number;
}

function precisionOf({ info }: Device): Precision {
  const [roundoff, backwardError, tolerance] = info.backend === "cpu"
    ? [2 ** -53, 1e-15, 1e-9] as const
    : [2 ** -24, 1e-13, 1e-6] as const;
  const conditioning = { roundoff, precision: "double", regularised: true, where: "here" } as const;
  return { conditioning, backwardError, tolerance };
}

/** XᵀX of rows with columns that shrink to `smallest` and share directions, as float32 holds it. */
function gramOf(rows: number, n: number, smallest: number, seed: number): Float64Array<ArrayBuffer> {
  const noise = gaussians(rows * n, seed);
  const common = gaussians(rows, seed + 1);
  const x = noise.map((value, i) => (value + 3 * common[Math.floor(i / n)]!) * smallest ** ((i % n) / n));
  const gram = new Float64Array(n * n);
  for (let t = 0; t < rows; t++) {
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) gram[i * n + j]! += x[t * n + i]! * x[t * n + j]!;
  }
  return gram.map(Math.fround);
}

function frobenius(x: Float64Array): number {
  return Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
}

function withRidge(gram: Float64Array<ArrayBuffer>, n: number, ridge: number): Float64Array<ArrayBuffer> {
  return gram.map((value, index) => value + (index % (n + 1) === 0 ? ridge : 0));
}

const ROWS = 5;

/** Solves for five rows, and by elimination too. */
async function solveBoth(device: Device, gram: Float64Array<ArrayBuffer>, n: number, ridge: number) {
  const right = gaussians(ROWS * n, 9).map(Math.fround);
  using uploaded = device.upload(gram, [n, n]);
  using factor = await factorise(uploaded, ridge, precisionOf(device).conditioning);
  using rows = device.upload(right, [ROWS, n]);
  const { x, ...figures } = await factor.solve(rows);
  using solution = x;
  using z = factor.half(rows);
  const whole = fromFlat(withRidge(gram, n, ridge), n, n);
  return {
    ...figures,
    x: await device.download(solution),
    z: await device.download(z),
    right,
    expected: solveRight(fromFlat(right, ROWS, n), whole).flat(),
    condition: await factor.condition(),
    shift: factor.shift,
    solver: factor.solver,
  };
}

testOnEachDevice("factorise() solves as elimination does, also when scales differ by 1e6", async (device) => {
  const { tolerance, backwardError } = precisionOf(device);
  for (const [n, smallest] of [[1, 1], [31, 1e-2], [64, 1e-6], [65, 1e-2], [130, 1e-2]] as const) {
    const gram = gramOf(3 * n, n, smallest, n);
    const result = await solveBoth(device, gram, n, 1e-7 * frobenius(gram));
    assertRelativelyClose(result.x, result.expected, tolerance, `n = ${n}`);
    assertLess(result.backwardError, backwardError);
    assertEquals(result.shift, 0);
    assertEquals(result.solver, device.info.backend === "cpu" ? "cpu_float64" : "gpu_refined");
  }
});

testOnGpu("factorise() refines in plain f32 where the sums were no better", async (device) => {
  const n = 130;
  const gram = gramOf(3 * n, n, 1e-2, n);
  const ridge = 1e-4 * frobenius(gram);
  using uploaded = device.upload(gram, [n, n]);
  const conditioning = { ...precisionOf(device).conditioning, precision: "single" } as const;
  using factor = await factorise(uploaded, ridge, conditioning);
  const right = gaussians(ROWS * n, 9).map(Math.fround);
  using rows = device.upload(right, [ROWS, n]);
  const { x, backwardError } = await factor.solve(rows);
  using solution = x;
  const expected = solveRight(fromFlat(right, ROWS, n), fromFlat(withRidge(gram, n, ridge), n, n)).flat();
  assertRelativelyClose(await device.download(solution), expected, 1e-4);
  assertLess(backwardError, 1e-7);
});

testOnEachDevice("factorise() halves so that Z Zᵀ = X G Xᵀ", async (device) => {
  const n = 70;
  const gram = gramOf(3 * n, n, 1e-2, 3);
  const { z, right, expected } = await solveBoth(device, gram, n, 1e-4 * frobenius(gram));
  // X G Xᵀ = N Xᵀ
  const tolerance = device.info.backend === "cpu" ? 1e-12 : 1e-4;
  assertRelativelyClose(rowProducts(z, z, n), rowProducts(right, expected, n), tolerance);
});

testOnEachDevice("factorise() keeps a ridge that rounding would swallow", async (device) => {
  const n = 100;
  const { tolerance, backwardError } = precisionOf(device);
  const gram = gramOf(60, n, 1e-1, 3);
  const result = await solveBoth(device, gram, n, 1e-6 * frobenius(gram));
  assertGreater(result.condition, 1e4);
  assertRelativelyClose(result.x, result.expected, tolerance);
  assertLess(result.backwardError, backwardError);
});

testOnEachDevice("factorise() estimates the condition number of the scaled system", async (device) => {
  // Scaled to [1, .9; .9, 1], with eigenvalues 1.9 and 0.1.
  const { condition } = await solveBoth(device, Float64Array.of(4, 1.8, 1.8, 1), 2, 0);
  assertGreater(condition, 18);
  assertLess(condition, 19.1);
});

testOnEachDevice(
  "factorise() throws singular_system when there is no ridge and no full rank",
  async (device) => {
    // What float32 sums leave of a zero eigenvalue is far above float64's rounding.
    const conditioning = {
      roundoff: 2 ** -24,
      precision: "double",
      regularised: false,
      where: "layers.0.q",
    } as const;
    for (const gram of [gramOf(15, 20, 1, 2), gramOf(65, 70, 1, 2), Float64Array.of(1, 0, 0, 0)]) {
      const n = Math.sqrt(gram.length);
      using uploaded = device.upload(gram, [n, n]);
      const error = await assertRejects(() => factorise(uploaded, 0, conditioning), IterisError);
      assertEquals([error.code, error.where], ["singular_system", "layers.0.q"]);
    }
  },
);

testOnEachDevice("factorise() gives all memory back", async (device) => {
  const before = device.memory.bytes;
  {
    using gram = device.upload(gramOf(200, 70, 1e-1, 5), [70, 70]);
    using factor = await factorise(gram, 1, precisionOf(device).conditioning);
    using rows = device.upload(gaussians(140, 1), [2, 70]);
    (await factor.solve(rows)).x.dispose();
    factor.half(rows).dispose();
  }
  assertEquals(device.memory.bytes, before);
});

/** x_i · y_j for all rows. */
function rowProducts(x: ArrayLike<number>, y: ArrayLike<number>, n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: ROWS * ROWS }, (_, index) => {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += x[Math.floor(index / ROWS) * n + k]! * y[(index % ROWS) * n + k]!;
    return sum;
  });
}

testOnGpu(
  "factorise() solves by conjugate gradients what f32 can only factor with a shift",
  async (device) => {
    const n = 96;
    const gram = gramOf(40, n, 1, 4);
    const result = await solveBoth(device, gram, n, 2e-8 * frobenius(gram));
    // Hardware fuses multiplications with additions, and may factor it as it is.
    if (device.info.class === "software") assertGreater(result.iterations, 12);
    assertRelativelyClose(result.x, result.expected, 1e-6);
  },
);

testOnGpu("factorise() leads to singular_system when nothing comes near a solution", async (device) => {
  const gram = gramOf(40, 96, 1, 4);
  const error = await assertRejects(() => solveBoth(device, gram, 96, 1e-12 * frobenius(gram)), IterisError);
  assert(error.code === "singular_system" && error.fix.includes("alpha"));
});

testOnEachDevice("Factor.nearby() solves the system of a matrix that is much alike", async (device) => {
  const n = 70;
  const { tolerance, backwardError, conditioning } = precisionOf(device);
  const parts = [3, 4].map((seed) => gramOf(3 * n, n, 1e-2, seed));
  const [gram, near] = ([[1, 1], [1.03, 0.97]] as const).map((weights) =>
    parts[0]!.map((value, i) => Math.fround(weights[0] * value + weights[1] * parts[1]![i]!))
  ) as [Float64Array<ArrayBuffer>, Float64Array<ArrayBuffer>];
  const ridge = 1e-4 * frobenius(gram);
  const right = gaussians(ROWS * n, 9).map(Math.fround);
  using matrix = device.upload(gram, [n, n]);
  using nearMatrix = device.upload(near, [n, n]);
  using rows = device.upload(right, [ROWS, n]);
  using factor = await factorise(matrix, ridge, conditioning);
  using nearby = factor.nearby(nearMatrix, ridge, "nearby");
  const solved = await nearby.solve(rows);
  using solution = solved.x;
  const expected = solveRight(fromFlat(right, ROWS, n), fromFlat(withRidge(near, n, ridge), n, n)).flat();
  assertRelativelyClose(await device.download(solution), expected, tolerance);
  assertLess(solved.backwardError, backwardError);
});

testOnEachDevice("withFactor() solves as factorise() does, to the last bit", async (device) => {
  const n = 96;
  const { conditioning } = precisionOf(device);
  // The first f32 can factor, the second only with a shift.
  for (const [gram, ridge] of [[gramOf(3 * n, n, 1e-2, 3), 1e-4], [gramOf(40, n, 1, 4), 2e-8]] as const) {
    using matrix = device.upload(gram, [n, n]);
    using rows = device.upload(gaussians(ROWS * n, 9).map(Math.fround), [ROWS, n]);
    const scaled = ridge * frobenius(gram);
    using factor = await factorise(matrix, scaled, conditioning);
    const expected = await factor.solve(rows);
    using solution = expected.x;
    const { shift, found } = await withFactor(matrix, scaled, conditioning, async (started) => {
      const { x } = await started.solve(rows);
      using solution = x;
      return { shift: started.shift, found: await device.download(solution) };
    });
    assertEquals(shift, factor.shift);
    assertEquals(found, await device.download(solution));
  }
});

testOnEachDevice(
  "withFactor() throws singular_system when the matrix is singular, and gives its memory back",
  async (device) => {
    const conditioning = { ...precisionOf(device).conditioning, regularised: false, roundoff: 2 ** -24 };
    using gram = device.upload(gramOf(15, 20, 1, 2), [20, 20]);
    using rows = device.upload(gaussians(20, 1), [1, 20]);
    const before = device.memory.bytes;
    const solving = () => withFactor(gram, 0, conditioning, (factor) => factor.solve(rows));
    const error = await assertRejects(solving, IterisError);
    assertEquals([error.code, error.where], ["singular_system", "here"]);
    assertEquals(device.memory.bytes, before);
  },
);
