import { assertDotProductsClose } from "@lora-loom/testing";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { openTestGpu, testGpu } from "../test_support/devices.ts";
import { productCases, runProduct } from "../test_support/product_cases.ts";
import { gemm } from "./gemm.ts";
import { chooseVariant, isOffered, PRODUCT_TABLE, type ProductShape, tableOf } from "./product_table.ts";
import { PRODUCT_VARIANTS } from "./product_variants.ts";

const FORMS = [[false, false], [false, true], [true, false], [true, true]] as const;

/**
 * A software driver takes seconds to compile each form of these; the smallest of the template, which it does compile, stands for them.
 * `tests/gpu_check.ts` runs every variant on hardware.
 */
const ON_HARDWARE = [...PRODUCT_VARIANTS.values()].filter(({ suits }) => suits === "hardware").map((
  { name },
) => name);

/** Forms to test of a variant: of templates that a software driver compiles slowly, two that meet all branches. */
function formsOf(variant: string): readonly (readonly [boolean, boolean])[] {
  return variant.startsWith("lanes_") ? FORMS : [FORMS[0], FORMS[3]];
}

for (const name of [...PRODUCT_VARIANTS.keys()].filter((name) => !ON_HARDWARE.includes(name))) {
  Deno.test({
    name:
      `gemm() keeps its error bound in every form of ${name}, or says that the adapter lacks what it needs`,
    // The device outlives the test.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const device = await testGpu() as GpuDevice;
      for (const [transposeA, transposeB] of formsOf(name)) {
        for (const product of productCases(transposeA, transposeB, name)) {
          if (!isOffered(name, device)) {
            const error = await assertRejects(() => runProduct(device, product), TensorError);
            assertEquals(error.code, "kernel_unsupported");
            continue;
          }
          const { actual, expected, magnitude } = await runProduct(device, product);
          assertDotProductsClose(actual, expected, magnitude, product.a.columns + 1);
        }
      }
    },
  });
}

const shape = (changes: Partial<ProductShape>): ProductShape => ({
  rows: 256,
  columns: 256,
  inner: 256,
  transposeA: false,
  transposeB: false,
  strideA: 256,
  ...changes,
});

/** As much of a device as the choice of a variant looks at. */
function pretend(
  kind: "tensor" | "gpu" | "software",
  subgroupSize: number,
  { matrixUnits = false, workgroupStorageBytes = 49152 } = {},
): GpuDevice {
  return {
    info: { class: kind },
    limits: { subgroupSize, workgroupStorageBytes, invocationsPerWorkgroup: 1024 },
    tuned: new Map(),
    features: new Set(["subgroups", ...matrixUnits ? ["chromium-experimental-subgroup-matrix"] : []]),
  } as unknown as GpuDevice;
}

Deno.test("chooseVariant() follows the table of the class of device", () => {
  const large = shape({ rows: 4096, columns: 4096, inner: 4096 });
  const of = (device: GpuDevice, asked: ProductShape) => chooseVariant(device, asked).name;
  assertEquals(of(pretend("tensor", 32, { matrixUnits: true }), large), "matrix_units");
  assertEquals(of(pretend("tensor", 32), large), "tiled_128_copy_both");
  assertEquals(of(pretend("gpu", 32), large), "tiled_128_copy_both");
  const larger = shape({ rows: 8192, columns: 8192, inner: 8192 });
  assertEquals(of(pretend("gpu", 32), larger), "tiled_192x128_copy_both");
  assertEquals(of(pretend("gpu", 32), shape({ rows: 600, columns: 600 })), "tiled_128");
  assertEquals(of(pretend("gpu", 32, { workgroupStorageBytes: 16384 }), large), "tiled_128x64");
  assertEquals(of(pretend("gpu", 32), shape({ rows: 4096, columns: 64 })), "tiled_128x64");
  assertEquals(of(pretend("gpu", 32), shape({ rows: 64, columns: 4096 })), "tiled_64x128");
  assertEquals(of(pretend("gpu", 32), shape({})), "tiled_64");
  assertEquals(of(pretend("gpu", 32), shape({ rows: 48 })), "tiled_32");
  assertEquals(of(pretend("gpu", 32), shape({ rows: 48, columns: 4096 })), "tiled_32x128");
  assertEquals(of(pretend("software", 4), shape({})), "registers_8x8");
  assertEquals(of(pretend("software", 4), shape({ rows: 2 })), "registers_1x8");
  const lanes = pretend("software", 8);
  assertEquals(of(lanes, shape({})), "lanes_16x32");
  assertEquals(of(lanes, shape({ transposeB: true })), "lanes_16x32_copy_b");
  assertEquals(of(lanes, shape({ inner: 1024, strideA: 1024 })), "lanes_16x32_copy_a");
  assertEquals(of(lanes, shape({ inner: 1024, strideA: 1024, transposeB: true })), "lanes_16x32_copy_both");
  assertEquals(of(lanes, shape({ inner: 1024, strideA: 1024, transposeA: true })), "lanes_16x32");
  assertEquals(of(lanes, shape({ rows: 8 })), "lanes_8x32");
  assertEquals(of(lanes, shape({ rows: 8, transposeB: true })), "lanes_8x16");
});

Deno.test("PRODUCT_TABLE names variants that exist, and ends with one for every shape", () => {
  for (const rules of Object.values(PRODUCT_TABLE)) {
    for (const { variant } of rules) assert(PRODUCT_VARIANTS.has(variant), variant);
    assertEquals(Object.keys(rules.at(-1)!), ["variant"]);
  }
});

Deno.test("the table of this adapter names variants that it offers", async () => {
  await using device = await openTestGpu() as GpuDevice;
  for (const { variant } of PRODUCT_TABLE[tableOf(device)]) assert(isOffered(variant, device), variant);
});

Deno.test("gemm() refuses a kernel that does not exist", async () => {
  await using device = await openTestGpu();
  using x = device.zeros([2, 2]);
  const error = assertThrows(() => gemm(x, x, { kernel: "tiled_3" }), TensorError);
  assertEquals(error.code, "unknown_kernel");
});
