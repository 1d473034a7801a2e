import { assertLessOrEqual } from "@std/assert";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { openTestGpu } from "../test_support/devices.ts";
import { type HostMatrix, products, randomMatrix } from "../test_support/matrices.ts";
import { isOffered } from "./product_table.ts";
import { type Product, queueProduct, type Triangle } from "./matrix_product.ts";

const COUNT = 3;

/** What a triangle leaves of a matrix; all of it without one. */
function restricted({ data, ...shape }: HostMatrix, triangle: Triangle | undefined): HostMatrix {
  const isIn = (i: number, j: number) => !triangle || (triangle === "lower" ? j <= i : j >= i);
  const { columns } = shape;
  return {
    ...shape,
    data: data.map((value, index) => isIn(Math.floor(index / columns), index % columns) ? value : 0),
  };
}

/** Multiplies as many pairs of matrices at once, each of which lies `gap` elements behind the one before, and compares each product. */
async function assertBatch(
  device: GpuDevice,
  [m, n, k]: readonly [number, number, number],
  gap: number,
  options: Pick<Product, "variant" | "triangular">,
): Promise<void> {
  const { a: triangleA, b: triangleB } = options.triangular ?? {};
  const pairs = Array.from({ length: COUNT }, (_, i) => ({
    a: restricted(randomMatrix(m, k, 2 * i), triangleA),
    b: restricted(randomMatrix(k, n, 2 * i + 1), triangleB),
  }));
  const apart = { a: m * k + gap, b: k * n + gap, c: m * n + gap };
  const laid = (matrices: readonly HostMatrix[], step: number) => {
    const all = new Float32Array(COUNT * step).fill(NaN);
    matrices.forEach(({ data }, i) => all.set(data, i * step));
    return device.upload(all, [all.length]);
  };
  using left = laid(pairs.map(({ a }) => a), apart.a);
  using right = laid(pairs.map(({ b }) => b), apart.b);
  using result = device.empty([COUNT * apart.c]);
  queueProduct(device, {
    a: { tensor: left, offset: 0, rows: m, columns: k, stride: k },
    b: { tensor: right, offset: 0, rows: k, columns: n, stride: n },
    c: { tensor: result, offset: 0, rows: m, columns: n, stride: n },
    batch: { count: COUNT, ...apart },
    ...options,
  });
  const found = await device.download(result);
  pairs.forEach(({ a, b }, item) => {
    const { sum, magnitude } = products(a, b);
    sum.forEach((value, i) =>
      assertLessOrEqual(
        Math.abs(found[item * apart.c + i]! - value),
        2 * Math.sqrt(k) * 2 ** -24 * magnitude[i]!,
        `${JSON.stringify(options)}, product ${item}, element ${i}`,
      )
    );
  });
}

const TRIANGLES: readonly Product["triangular"][] = [
  undefined,
  { a: "lower" },
  { a: "upper" },
  { b: "lower" },
  { b: "upper" },
  { a: "lower", b: "upper" },
  { a: "upper", b: "lower" },
];

Deno.test("queueProduct() multiplies batches, and triangles without what is zero, with every kind of kernel", async () => {
  await using device = await openTestGpu() as GpuDevice;
  for (
    const variant of ["tiled_8x8", "registers_8x4", "lanes_16x32"].filter((name) => isOffered(name, device))
  ) {
    for (const triangular of TRIANGLES) {
      // Aligned to vec4s, and not.
      await assertBatch(device, [36, 36, 36], 4, { variant, triangular });
      await assertBatch(device, [21, 21, 21], 3, { variant, triangular });
    }
    await assertBatch(device, [5, 40, 17], 0, { variant });
  }
});

Deno.test("queueProduct() cuts a batch that exceeds one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 8192 }) as GpuDevice;
  await assertBatch(device, [30, 30, 30], 0, { triangular: { a: "lower" } });
});
