import { assertEquals, assertGreater, assertGreaterOrEqual, assertMatch } from "@std/assert";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { wholeMatrix } from "../gpu/matrix_view.ts";
import { MATRIX_UNIT_PARAMS } from "../kernels/gemm_matrix_units.ts";
import type { DType, Tensor } from "../tensor.ts";
import type { ProductPrecision } from "./matrix_units.ts";
import { queueProduct } from "./matrix_product.ts";

/** A dispatch of a product's kernel, its parameters by name, and the slices that it covers. */
interface Queued {
  readonly kernel: string;
  readonly params: Readonly<Record<string, number>>;
  readonly slices: number;
}

/** What a device with matrix units is asked for. No such device is needed to see how a product is cut. */
function queuedFor(
  [m, n, k]: readonly [number, number, number],
  [a, b]: readonly [DType, DType],
  precision: ProductPrecision = "f32",
): Queued[] {
  const queued: Queued[] = [];
  const tensor = (shape: readonly number[], dtype: DType = "f32") =>
    ({ shape, dtype, dispose() {}, [Symbol.dispose]() {} }) as unknown as Tensor;
  const device = {
    info: { class: "tensor" },
    features: new Set(["chromium-experimental-subgroup-matrix"]),
    limits: { subgroupSize: 32, maxBindingBytes: 2 ** 31, windowAlignmentBytes: 256 },
    tuned: new Map(),
    empty: tensor,
    zeros: tensor,
    dispatch(
      { name, params }: Kernel,
      _tensors: unknown,
      values: readonly number[],
      grid: readonly number[],
    ) {
      if (params !== MATRIX_UNIT_PARAMS) return;
      const named = Object.fromEntries(params.map(([name], index) => [name, values[index]!]));
      queued.push({ kernel: name, params: named, slices: grid[2]! });
    },
  } as unknown as GpuDevice;
  queueProduct(device, {
    a: wholeMatrix(tensor([m, k], a), "test"),
    b: wholeMatrix(tensor([n, k], b), "test"),
    c: wholeMatrix(tensor([m, n]), "test"),
    transposeB: true,
    variant: "matrix_units",
    precision,
  });
  return queued;
}

const SIZES = [[4096, 4096, 4096], [300, 4096, 11008], [1000, 600, 11011], [129, 257, 99999], [
  12800,
  4096,
  100,
]] as const;

Deno.test("queueProduct() splits only operands that 11 bits do not hold", () => {
  const kernelsOf = (dtypes: readonly [DType, DType], precision?: ProductPrecision) =>
    queuedFor([4096, 4096, 4096], dtypes, precision).map(({ kernel }) => kernel);
  assertMatch(kernelsOf(["f32", "f32"])[0]!, /_split_\d/);
  assertMatch(kernelsOf(["f32", "bf16"])[0]!, /_split_a_\d/);
  assertMatch(kernelsOf(["f32", "f16"])[0]!, /_split_a_\d/);
  // There is no kernel that splits the right operand alone.
  assertMatch(kernelsOf(["bf16", "f32"])[0]!, /_split_\d/);
  assertMatch(kernelsOf(["bf16", "f16"])[0]!, /_f16_\d/);
  assertMatch(kernelsOf(["f32", "f32"], "f16")[0]!, /_f16_\d/);
});

Deno.test("queueProduct() sums in f32 precision add to C every 512 steps, also of operands that are not split", () => {
  for (const dtypes of [["f32", "f32"], ["f32", "bf16"], ["bf16", "bf16"]] as const) {
    for (const { params } of queuedFor([4096, 4096, 4096], dtypes)) assertEquals(params.run, 512 / 16);
  }
});

Deno.test("queueProduct() cuts the inner index alike whichever operands are split, and covers all of it", () => {
  for (const sizes of SIZES) {
    const cuts = (["f32", "bf16", "f16"] as const).map((b) => queuedFor(sizes, ["f32", b]));
    for (const queued of cuts) {
      assertGreater(queued.length, 0);
      let covered = 0;
      for (const { params, slices } of queued) {
        assertGreaterOrEqual(params.chunksPerSlice! * slices, params.chunks!);
        covered += 16 * params.chunks!;
      }
      assertGreaterOrEqual(covered, sizes[2]);
    }
    const [first, ...others] = cuts.map((queued) =>
      queued.map((
        { params, slices },
      ) => [params.chunksPerSlice, params.run, params.tileRows, params.tileColumns, slices])
    );
    for (const other of others) assertEquals(other, first, String(sizes));
  }
});
