import { assert } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { CpuDevice, type Device, openDevice } from "@lora-loom/tensor";
import { orthonormalRowBasis } from "./orthonormal_basis.ts";

interface Found {
  readonly rows: number;
  /** Q Qᵀ */
  readonly gram: Float64Array;
  /** X Qᵀ Q, what the basis keeps of X. */
  readonly kept: Float64Array;
}

async function basisOf(device: Device, x: Float64Array, n: number, d: number): Promise<Found> {
  using vectors = device.upload(Float64Array.from(x), [n, d]);
  using basis = await orthonormalRowBasis(vectors);
  const rows = basis.shape[0]!;
  const q = Float64Array.from(await device.download(basis));
  const dot = (a: Float64Array, i: number, b: Float64Array, j: number) => {
    let sum = 0;
    for (let k = 0; k < d; k++) sum += a[i * d + k]! * b[j * d + k]!;
    return sum;
  };
  const gram = Float64Array.from(
    { length: rows * rows },
    (_, i) => dot(q, Math.floor(i / rows), q, i % rows),
  );
  const kept = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    for (let r = 0; r < rows; r++) {
      const along = dot(x, i, q, r);
      for (let k = 0; k < d; k++) kept[i * d + k]! += along * q[r * d + k]!;
    }
  }
  return { rows, gram, kept };
}

/** Rows of very different lengths and nearly equal directions, as stacked factors of trained adapters can be. */
function graded(n: number, d: number): Float64Array<ArrayBuffer> {
  const common = gaussians(d, 5);
  return gaussians(n * d, 6).map((value, index) => {
    const row = Math.floor(index / d);
    return 10 ** -(row % 5) * (common[index % d]! + 0.01 * value);
  });
}

const CASES: readonly (readonly [what: string, x: Float64Array, n: number, d: number])[] = [
  ["independent rows", gaussians(12 * 50, 1), 12, 50],
  ["more rows than columns", gaussians(20 * 7, 2), 20, 7],
  ["the same rows twice", Float64Array.from([...gaussians(6 * 30, 3), ...gaussians(6 * 30, 3)]), 12, 30],
  ["graded and nearly parallel rows", graded(10, 40), 10, 40],
  ["zero rows among others", gaussians(8 * 30, 4).map((x, i) => Math.floor(i / 30) % 2 === 0 ? 0 : x), 8, 30],
];

async function check(device: Device, orthonormal: number, span: number): Promise<void> {
  for (const [what, x, n, d] of CASES) {
    const { rows, gram, kept } = await basisOf(device, x, n, d);
    assert(rows <= Math.min(n, d), `${what}: ${rows} vectors in ${d} dimensions from ${n}`);
    const identity = Float64Array.from(gram, (_, i) => i % (rows + 1) === 0 ? 1 : 0);
    assertRelativelyClose(gram, identity, orthonormal, `${what}, orthonormal:`);
    for (let i = 0; i < n; i++) {
      const row = (matrix: Float64Array) => matrix.subarray(i * d, (i + 1) * d);
      // Each row by itself, so that small ones count as much.
      assertRelativelyClose(row(kept), row(x), span, `${what}, row ${i}:`);
    }
  }
}

Deno.test("orthonormalRowBasis() spans every row, small ones too, on the CPU", () =>
  check(new CpuDevice(), 1e-12, 1e-9));

Deno.test("orthonormalRowBasis() does so on a GPU to the precision of float32", async () => {
  await using device = await openDevice({ device: "software" });
  await check(device, 1e-5, 1e-5);
});

Deno.test("orthonormalRowBasis() gives one zero row for a stack of zeros", async () => {
  const { rows, gram } = await basisOf(new CpuDevice(), new Float64Array(15), 3, 5);
  assert(rows === 1 && gram[0] === 0);
});
