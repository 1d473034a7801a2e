import { assertDotProductsClose } from "@lora-loom/testing";
import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { CpuDevice } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { openDevice } from "../open_device.ts";
import { gemm } from "../ops/gemm.ts";
import { candidates, chooseVariant, variantOfTable } from "../ops/product_table.ts";
import { openTestGpu } from "../test_support/devices.ts";
import { products, randomMatrix } from "../test_support/matrices.ts";
import { tuneProducts, type TuningShape, usualShapes } from "./tune_products.ts";
import { readTuning, type TuningKey, tuningKey, tuningPath, writeTuning } from "./tuning_file.ts";

const SHAPE: TuningShape = { rows: 40, columns: 48, inner: 24, transposeA: false, transposeB: true };
const BUCKET = "nt 64 64 32";

/** The table's variant for {@linkcode SHAPE}, and another one that the device offers. */
function variants(device: GpuDevice): { readonly table: string; readonly other: string } {
  const table = variantOfTable(device, { ...SHAPE, strideA: 24 }).name;
  const other = candidates(device).find(({ name, copies }) => name !== table && copies.length === 0)!.name;
  return { table, other };
}

/** Times that someone made up; variants that are not named take 9 s. */
function fakeTimes(seconds: Readonly<Record<string, number>>) {
  return (runs: Readonly<Record<string, () => void>>) =>
    Promise.resolve(Object.fromEntries(Object.keys(runs).map((variant) => [variant, seconds[variant] ?? 9])));
}

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("tuneProducts() picks what was fastest, and keeps the table's where the gain may be chance", async () => {
  await using device = await openTestGpu() as GpuDevice;
  const { table, other } = variants(device);
  const tune = (seconds: Record<string, number>) =>
    tuneProducts(device, { shapes: [SHAPE], measure: fakeTimes(seconds) });
  assertEquals([...await tune({ [other]: 1, [table]: 2 })], [[BUCKET, other]]);
  assertEquals([...await tune({ [other]: 2, [table]: 1 })], []);
  assertEquals([...await tune({ [other]: 0.95, [table]: 1 })], []);
});

Deno.test("tuneProducts() measures a bucket once, with every variant that suits the adapter", async () => {
  await using device = await openTestGpu() as GpuDevice;
  const measured: string[] = [];
  await tuneProducts(device, {
    shapes: [SHAPE, { ...SHAPE, rows: 33 }, { ...SHAPE, columns: 64 }],
    measure(runs) {
      for (const [variant, run] of Object.entries(runs)) {
        run();
        measured.push(variant);
      }
      return Promise.resolve(Object.fromEntries(measured.map((variant) => [variant, 1])));
    },
  });
  // A is not transposed and B is: copies of either are ways of their own.
  assertEquals(measured, candidates(device).map(({ name }) => name));
});

Deno.test("tuneProducts() measures on the device when nothing else is given", async () => {
  await using device = await openTestGpu() as GpuDevice;
  let told = 0;
  const choices = await tuneProducts(device, {
    shapes: [{ rows: 4, columns: 4, inner: 4, transposeA: true, transposeB: false }],
    onProgress({ seconds, chosen }) {
      told++;
      assert(Object.values(seconds).every((time) => time > 0));
      assert(chosen in seconds);
    },
  });
  assertEquals(told, 1);
  assert(choices.size <= 1);
});

Deno.test("tuneProducts() refuses the CPU", async () => {
  const error = await assertRejects(() => tuneProducts(new CpuDevice(), { shapes: [SHAPE] }), TensorError);
  assertEquals(error.code, "no_gpu");
});

Deno.test("openDevice() computes with the tuned variants when asked, the same each time", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "deep", "choices.json");
    let chosen = "";
    {
      await using device = await openTestGpu() as GpuDevice;
      const { other, table } = variants(device);
      chosen = other;
      const choices = await tuneProducts(device, {
        shapes: [SHAPE],
        measure: fakeTimes({ [other]: 1, [table]: 2 }),
      });
      await writeTuning(path, tuningKey(device.info, "safe"), choices);
      assertEquals(chooseVariant(device, { ...SHAPE, strideA: 24 }).name, table);
    }
    const [a, b] = [randomMatrix(SHAPE.rows, SHAPE.inner, 1), randomMatrix(SHAPE.columns, SHAPE.inner, 2)];
    const results: ArrayLike<number>[] = [];
    for (let time = 0; time < 2; time++) {
      await using device = await openTestGpu({ tuned: path, warn: fail }) as GpuDevice;
      assertEquals([...device.tuned], [[BUCKET, chosen]]);
      assertEquals(device.info.tuning?.length, 16);
      assertEquals(chooseVariant(device, { ...SHAPE, strideA: 24 }).name, chosen);
      using left = device.upload(a.data, [a.rows, a.columns]);
      using right = device.upload(b.data, [b.rows, b.columns]);
      using product = gemm(left, right, { transposeB: true });
      results.push(await device.download(product));
    }
    assertEquals(results[0], results[1]);
    const columns = randomMatrix(SHAPE.columns, SHAPE.inner, 2);
    const right = {
      rows: SHAPE.inner,
      columns: SHAPE.columns,
      data: Float32Array.from(
        { length: columns.data.length },
        (_, i) => columns.data[(i % SHAPE.columns) * SHAPE.inner + Math.floor(i / SHAPE.columns)]!,
      ),
    };
    const { sum, magnitude } = products(a, right);
    assertDotProductsClose(results[0]!, sum, magnitude, SHAPE.inner);
  });
});

function fail(message: string): never {
  throw new Error(`unexpected warning: ${message}`);
}

const KEY: TuningKey = { adapter: "Some GPU (7)", driver: "1.2", profile: "safe", kernels: "abc" };

Deno.test("readTuning() gives what writeTuning() wrote, and leaves nothing else behind", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "choices.json");
    const choices = new Map([["nt 64 64 32", "tiled_32"], ["nn 8 8 8", "tiled_64"]]);
    await writeTuning(path, KEY, choices);
    const read = await readTuning(path, KEY, fail);
    assertEquals(new Map(read), choices);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["choices.json"]);
    const bytes = await Deno.readTextFile(path);
    await writeTuning(path, KEY, new Map([...choices].reverse()));
    assertEquals(await Deno.readTextFile(path), bytes);
  });
});

Deno.test("readTuning() ignores what was measured with anything else, and says so", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "choices.json");
    await writeTuning(path, KEY, new Map([["nn 8 8 8", "tiled_64"]]));
    for (
      const change of [{ driver: "1.3" }, { adapter: "Another" }, { profile: "fast" as const }, {
        kernels: "def",
      }]
    ) {
      const warnings: string[] = [];
      assertEquals(await readTuning(path, { ...KEY, ...change }, (text) => warnings.push(text)), undefined);
      assertEquals(warnings.length, 1);
      assertStringIncludes(warnings[0]!, path);
      assertStringIncludes(warnings[0]!, Object.keys(change)[0]!);
      assertStringIncludes(warnings[0]!, "deno task tune");
    }
  });
});

Deno.test("readTuning() ignores files that are missing, damaged or foreign, and says so", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "choices.json");
    const whole = { version: 1, ...KEY, products: {} };
    const cases = [
      [undefined, "does not exist"],
      ["", "not JSON"],
      ['{"version": 1', "not JSON"],
      ["null", "version undefined"],
      ["[]", "version undefined"],
      [JSON.stringify({ ...whole, version: 2 }), "version 2"],
      [JSON.stringify({ ...whole, products: undefined }), "lacks products"],
      [JSON.stringify({ ...whole, products: [] }), "lacks products"],
      [JSON.stringify({ ...whole, products: { "nn 8 8 8": "tiled_3" } }), '"tiled_3"'],
      [JSON.stringify({ ...whole, products: { "nn 8 8 8": 3 } }), "3"],
    ] as const;
    for (const [content, reason] of cases) {
      if (content !== undefined) await Deno.writeTextFile(path, content);
      const warnings: string[] = [];
      assertEquals(await readTuning(path, KEY, (text) => warnings.push(text)), undefined);
      assertEquals(warnings.length, 1);
      assertStringIncludes(warnings[0]!, reason);
    }
  });
});

Deno.test("openDevice() opens with the table's choices when the file of tuning is damaged", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "choices.json");
    await Deno.writeTextFile(path, "{");
    const warnings: string[] = [];
    await using device = await openDevice({ tuned: path, warn: (text) => warnings.push(text) }) as GpuDevice;
    assertEquals([device.tuned.size, device.info.tuning, warnings.length], [0, undefined, 1]);
  });
});

Deno.test("tuningPath() tells adapters and profiles apart", () => {
  const path = tuningPath(KEY);
  assert(path.endsWith(join("lora-loom", "products", "some-gpu-7-safe.json")), path);
  assertNotEquals(tuningPath({ ...KEY, adapter: "Some GPU (8)" }), path);
  assertNotEquals(tuningPath({ ...KEY, profile: "fast" }), path);
  assertEquals(tuningPath({ ...KEY, driver: "2" }), path);
});

Deno.test("usualShapes() covers ranks, squares and activations up to the largest size", () => {
  const shapes = usualShapes(1024);
  assert(shapes.every(({ rows, columns, inner }) => Math.max(rows, columns, inner) <= 1024));
  assert(shapes.every(({ rows, columns, inner }) => [rows, columns, inner].every((size) => size % 4 === 0)));
  assert(shapes.some(({ columns, inner }) => columns <= 8 && inner > 512));
  assert(shapes.some(({ rows, columns, inner }) => rows > 512 && columns > 512 && inner > 512));
});
