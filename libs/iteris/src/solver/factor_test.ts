import { assert, assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import { CpuDevice, type Device, openDevice } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { IterisError } from "../errors.ts";
import { fromFlat, solveRight } from "../test_support/oracle.ts";
import { type Conditioning, factorise } from "./factor.ts";

/** A device to test on: unit roundoff of what it computes, and the backward error it reaches. */
interface Place {
  readonly name: string;
  readonly open: () => Promise<Device>;
  readonly conditioning: Conditioning;
  readonly backwardError: number;
  /** How far its solutions may be from float64's. */
  readonly tolerance: number;
}

const PLACES: readonly Place[] = [
  {
    name: "CPU",
    open: () => Promise.resolve(new CpuDevice()),
    conditioning: { roundoff: 2 ** -53, regularised: true, where: "here" },
    backwardError: 1e-15,
    tolerance: 1e-9,
  },
  {
    name: "GPU",
    open: () => openDevice({ device: "software" }),
    conditioning: { roundoff: 2 ** -24, regularised: true, where: "here" },
    backwardError: 1e-13,
    tolerance: 1e-6,
  },
];
const GPU = PLACES[1]!;

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
async function solveBoth(place: Place, gram: Float64Array<ArrayBuffer>, n: number, ridge: number) {
  await using device = await place.open();
  const right = gaussians(ROWS * n, 9).map(Math.fround);
  using uploaded = device.upload(gram, [n, n]);
  using factor = await factorise(uploaded, ridge, place.conditioning);
  using rows = device.upload(right, [ROWS, n]);
  const { x, ...figures } = await factor.solve(rows);
  using z = factor.half(rows);
  const whole = fromFlat(withRidge(gram, n, ridge), n, n);
  return {
    ...figures,
    x: await device.download(x),
    z: await device.download(z),
    right,
    expected: solveRight(fromFlat(right, ROWS, n), whole).flat(),
    condition: factor.condition,
    shift: factor.shift,
    solver: factor.solver,
  };
}

for (const place of PLACES) {
  const { name, tolerance } = place;

  Deno.test(`factorise() solves as elimination does on the ${name}, also when scales differ by 1e6`, async () => {
    for (const [n, smallest] of [[1, 1], [31, 1e-2], [64, 1e-6], [65, 1e-2], [130, 1e-2]] as const) {
      const gram = gramOf(3 * n, n, smallest, n);
      const result = await solveBoth(place, gram, n, 1e-7 * frobenius(gram));
      assertRelativelyClose(result.x, result.expected, tolerance, `n = ${n}`);
      assertLess(result.backwardError, place.backwardError);
      assertEquals(result.shift, 0);
      assertEquals(result.solver, name === "CPU" ? "cpu_float64" : "gpu_refined");
    }
  });

  Deno.test(`factorise() halves so that Z Zᵀ = X G Xᵀ on the ${name}`, async () => {
    const n = 70;
    const gram = gramOf(3 * n, n, 1e-2, 3);
    const { z, right, expected } = await solveBoth(place, gram, n, 1e-4 * frobenius(gram));
    // X G Xᵀ = N Xᵀ
    assertRelativelyClose(rowProducts(z, z, n), rowProducts(right, expected, n), Math.max(tolerance, 1e-4));
  });

  Deno.test(`factorise() keeps a ridge that rounding would swallow, on the ${name}`, async () => {
    const n = 100;
    const gram = gramOf(60, n, 1e-1, 3);
    const result = await solveBoth(place, gram, n, 1e-6 * frobenius(gram));
    assertGreater(result.condition, 1e4);
    assertRelativelyClose(result.x, result.expected, tolerance);
    assertLess(result.backwardError, place.backwardError);
  });

  Deno.test(`factorise() estimates the condition number of the scaled system on the ${name}`, async () => {
    // Scaled to [1, .9; .9, 1], with eigenvalues 1.9 and 0.1.
    const { condition } = await solveBoth(place, Float64Array.of(4, 1.8, 1.8, 1), 2, 0);
    assertGreater(condition, 18);
    assertLess(condition, 19.1);
  });

  Deno.test(`factorise() throws singular_system on the ${name} when there is no ridge and no full rank`, async () => {
    await using device = await place.open();
    const conditioning = { ...place.conditioning, regularised: false, where: "layers.0.q" };
    const grams = [gramOf(15, 20, 1, 2), gramOf(65, 70, 1, 2), Float64Array.of(1, 0, 0, 0)];
    for (const gram of grams) {
      const n = Math.sqrt(gram.length);
      // What float32 sums leave of a zero eigenvalue is far above float64's rounding.
      const roundoff = 2 ** -24;
      using uploaded = device.upload(gram, [n, n]);
      const error = await assertRejects(
        () => factorise(uploaded, 0, { ...conditioning, roundoff }),
        IterisError,
      );
      assertEquals([error.code, error.where], ["singular_system", "layers.0.q"]);
    }
  });

  Deno.test(`factorise() gives all memory back on the ${name}`, async () => {
    await using device = await place.open();
    {
      using gram = device.upload(gramOf(200, 70, 1e-1, 5), [70, 70]);
      using factor = await factorise(gram, 1, place.conditioning);
      using rows = device.upload(gaussians(140, 1), [2, 70]);
      (await factor.solve(rows)).x.dispose();
      factor.half(rows).dispose();
    }
    assertEquals(device.memory.bytes, 0);
  });
}

/** x_i · y_j for all rows. */
function rowProducts(x: ArrayLike<number>, y: ArrayLike<number>, n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: ROWS * ROWS }, (_, index) => {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += x[Math.floor(index / ROWS) * n + k]! * y[(index % ROWS) * n + k]!;
    return sum;
  });
}

Deno.test("factorise() shifts a matrix that f32 cannot factor, and solves it as it is by conjugate gradients", async () => {
  const n = 96;
  const gram = gramOf(40, n, 1, 4);
  const result = await solveBoth(GPU, gram, n, 2e-8 * frobenius(gram));
  assertGreater(result.shift, 0);
  assertGreater(result.iterations, 12);
  assertRelativelyClose(result.x, result.expected, 1e-6);
});

Deno.test("factorise() leads to singular_system when nothing comes near a solution", async () => {
  const gram = gramOf(40, 96, 1, 4);
  const error = await assertRejects(() => solveBoth(GPU, gram, 96, 1e-12 * frobenius(gram)), IterisError);
  assert(error.code === "singular_system" && error.fix.includes("alpha"));
});
