import { assertEquals } from "@std/assert";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { type Precision, ProductSum } from "./product_sum.ts";
import { testOnEachDevice } from "./test_support/devices.ts";

const [TOKENS, M, N] = [40, 21, 9];
const FACTOR = 0.125;

/** factor · Σ Xᵀ diag(w) Y by hand. */
function expectedSum(
  x: Float64Array,
  y: Float64Array,
  w: Float64Array,
  m: number,
  n: number,
): Float64Array<ArrayBuffer> {
  const sum = new Float64Array(m * n);
  for (let t = 0; t < TOKENS; t++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) sum[i * n + j]! += FACTOR * w[t]! * x[t * m + i]! * y[t * n + j]!;
    }
  }
  return sum;
}

for (const precision of ["single", "double"] as const) {
  testOnEachDevice(`ProductSum adds up batches in ${precision}, here and on the host`, async (device) => {
    for (const place of [device, new CpuDevice()]) await checkSum(device, place, precision);
  });
}

async function checkSum(device: Device, place: Device, precision: Precision): Promise<void> {
  using products = new ProductSum(precision, FACTOR);
  using squares = new ProductSum(precision, FACTOR);
  const [product, square] = [new Float64Array(M * N), new Float64Array(M * M)];
  for (let batch = 0; batch < 3; batch++) {
    const [x, y] = [gaussians(TOKENS * M, batch), gaussians(TOKENS * N, 10 + batch)].map((values) =>
      values.map(Math.fround)
    );
    // The last batch has no weights: all are 1.
    const w = gaussians(TOKENS, 20 + batch).map((value) => batch < 2 ? Math.fround(value * value) : 1);
    using rows = device.upload(x!, [TOKENS, M]);
    using others = device.upload(y!, [TOKENS, N]);
    using weights = device.upload(w, [TOKENS]);
    const given = batch < 2 ? weights : undefined;
    products.add(rows, others, given);
    squares.add(rows, rows, given);
    expectedSum(x!, y!, w, M, N).forEach((value, i) => product[i]! += value);
    expectedSum(x!, x!, w, M, M).forEach((value, i) => square[i]! += value);
  }
  for (const [sum, expected] of [[products, product], [squares, square]] as const) {
    using tensor = (await sum.takeTo(place))!;
    if (sum === squares) assertSymmetric(await place.download(tensor));
    assertEquals(tensor.device, place);
    assertRelativelyClose(await place.download(tensor), expected, 3e-7);
  }
}

function assertSymmetric(values: ArrayLike<number>): void {
  for (let i = 0; i < M; i++) {
    for (let j = 0; j < i; j++) assertEquals(values[i * M + j], values[j * M + i]);
  }
}

Deno.test("ProductSum gives nothing when nothing was added", async () => {
  using sum = new ProductSum("single", 1);
  assertEquals(await sum.takeTo(new CpuDevice()), undefined);
});
