import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import { RandomAccessFile } from "../io/random_access_file.ts";
import { assertRefused, inTemporaryFolder } from "../test_support.ts";
import type { StoredDType } from "./dtypes.ts";
import { openSafetensors } from "./read.ts";
import { createSafetensorsWriter, layOut, startWriting, type TensorDescription } from "./write.ts";

const SIZES = { F64: 8, F32: 4, BF16: 2, U8: 1 } as const;

interface Described extends TensorDescription {
  readonly bytes: Uint8Array;
}

const described: fc.Arbitrary<Described> = fc.record({
  name: fc.string({ minLength: 1, maxLength: 20, unit: "grapheme" }).filter((name) => name.isWellFormed()),
  dtype: fc.constantFrom(...(Object.keys(SIZES) as (keyof typeof SIZES)[])),
  shape: fc.array(fc.nat(5), { maxLength: 3 }),
  seed: fc.nat(255),
}).map(({ name, dtype, shape, seed }) => {
  const length = shape.reduce((product, dimension) => product * dimension, SIZES[dtype]);
  return { name, dtype, shape, bytes: Uint8Array.from({ length }, (_, i) => (seed + 31 * i) & 255) };
});
const someTensors = fc.uniqueArray(described, { maxLength: 8, selector: ({ name }) => name });

async function write(path: string, tensors: readonly Described[], metadata: Record<string, string> = {}) {
  const writer = await createSafetensorsWriter(path, tensors, metadata);
  for (const { name, bytes } of tensors) await writer.write(name, bytes);
  await writer.finish();
}

Deno.test("createSafetensorsWriter() writes what openSafetensors() reads back, byte for byte", () =>
  inTemporaryFolder(async (folder) => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        someTensors,
        fc.dictionary(fc.string(), fc.string(), { maxKeys: 4 }),
        async (tensors, metadata) => {
          const path = join(folder, `${run++}.safetensors`);
          await write(path, tensors, metadata);
          using file = await openSafetensors(path);
          assertEquals({ ...file.metadata }, { ...metadata });
          assertEquals([...file.tensors.keys()].sort(), tensors.map(({ name }) => name).sort());
          for (const { name, dtype, shape, bytes } of tensors) {
            const tensor = file.tensors.get(name)!;
            assertEquals([tensor.dtype, tensor.shape, tensor.byteLength], [dtype, shape, bytes.length]);
            assertEquals(await tensor.read(), bytes);
          }
        },
      ),
      { seed: 5, numRuns: 60 },
    );
  }));

Deno.test("createSafetensorsWriter() gives equal bytes whatever the order of tensors and metadata", () =>
  inTemporaryFolder(async (folder) => {
    const tensors: Described[] = [
      { name: "b", dtype: "U8", shape: [3], bytes: Uint8Array.of(1, 2, 3) },
      { name: "10", dtype: "F32", shape: [1], bytes: Uint8Array.of(4, 5, 6, 7) },
      { name: "2", dtype: "F32", shape: [1], bytes: Uint8Array.of(8, 9, 10, 11) },
    ];
    await write(join(folder, "1"), tensors, { z: "1", a: "2" });
    await write(join(folder, "2"), tensors.toReversed(), { a: "2", z: "1" });
    const bytes = await Deno.readFile(join(folder, "1"));
    assertEquals(bytes, await Deno.readFile(join(folder, "2")));
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    assertEquals(length % 8, 0);
    assertStringIncludes(
      new TextDecoder().decode(bytes.subarray(8, 8 + length)),
      '{"__metadata__":{"a":"2","z":"1"},"10":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' +
        '"2":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}',
    );
  }));

Deno.test("layOut() aligns every tensor to its dtype", () => {
  fc.assert(
    fc.property(someTensors, (tensors) => {
      const { header, places } = layOut(tensors, {}, "file");
      for (const { name, dtype } of tensors) {
        assertEquals((header.length + places.get(name)!.begin) % SIZES[dtype as keyof typeof SIZES], 0);
      }
    }),
    { seed: 6 },
  );
});

Deno.test("SafetensorsWriter refuses missing, repeated, unknown and wrongly sized tensors", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "t.safetensors");
    const entries = [{ name: "a", dtype: "F32" as StoredDType, shape: [2] }, {
      name: "b",
      dtype: "F32" as StoredDType,
      shape: [1],
    }];
    const writer = await createSafetensorsWriter(path, entries);
    await assertRefused(() => writer.write("c", new Uint8Array(4)), "tensor_not_found");
    await assertRefused(() => writer.write("a", new Uint8Array(4)), "tensor_invalid_info");
    await writer.write("a", new Uint8Array(8));
    await assertRefused(() => writer.write("a", new Uint8Array(8)), "tensor_written_twice");
    await assertRefused(() => writer.finish(), "tensor_missing");
    await writer.abort();
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
  }));

Deno.test("createSafetensorsWriter() refuses bad names and shapes, and an existing file", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "t.safetensors");
    const entry = (name: string, shape: number[] = [1]) => ({ name, dtype: "F32" as StoredDType, shape });
    await assertRefused(() => createSafetensorsWriter(path, [entry("a"), entry("a")]), "duplicate_key");
    await assertRefused(() => createSafetensorsWriter(path, [entry("__metadata__")]), "invalid_name");
    await assertRefused(() => createSafetensorsWriter(path, [entry("\ud800")]), "invalid_name");
    await assertRefused(() => createSafetensorsWriter(path, [entry("a", [-1])]), "invalid_shape");
    await assertRefused(() => createSafetensorsWriter(path, [entry("a", [1.5])]), "invalid_shape");
    await assertRefused(
      () => createSafetensorsWriter(path, [entry("a", [2 ** 40, 2 ** 40])]),
      "validation_overflow",
    );
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
    await Deno.writeTextFile(path, "mine");
    await assertRefused(() => createSafetensorsWriter(path, [entry("a")]), "target_exists");
    assertEquals(await Deno.readTextFile(path), "mine");
  }));

Deno.test("SafetensorsWriter answers disk_full when no space is left", async () => {
  const { header, places } = layOut([{ name: "a", dtype: "F32", shape: [1] }], {}, "/dev/full");
  const file = await RandomAccessFile.open("/dev/full", "update");
  try {
    const error = await assertRefused(() => startWriting(file, header, places), "disk_full");
    assertEquals(error.where, "/dev/full");
    assert((error.cause as { code: string }).code === "ENOSPC");
  } finally {
    file.close();
  }
});
