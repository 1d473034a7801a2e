import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import fc from "fast-check";
import { join as joinPath } from "node:path";
import { FormatError } from "../errors.ts";
import { assertRefused, inTemporaryFolder } from "../test_support.ts";
import { type Field, file, float32, float32File, info, join, text, uint32 } from "./bytes_for_tests.ts";
import { openGguf } from "./read.ts";
import { createGgufWriter, type WrittenValue } from "./write.ts";

const bytes8 = new Uint8Array(8);

function withBytes(
  bytes: Uint8Array<ArrayBuffer>,
  check: (path: string) => void | Promise<void>,
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const path = joinPath(folder, "x.gguf");
    await Deno.writeFile(path, bytes);
    await check(path);
  });
}

Deno.test("openGguf() reads values of every type", () => {
  const scalar = (key: string, type: number, bytes: Uint8Array): Field[] => [key, type, bytes];
  const typed = (array: { buffer: ArrayBuffer }) => new Uint8Array(array.buffer);
  const bytes = file([
    scalar("u8", 0, Uint8Array.of(200)),
    scalar("i8", 1, Uint8Array.of(200)),
    scalar("u16", 2, typed(Uint16Array.of(60000))),
    scalar("i16", 3, typed(Int16Array.of(-7))),
    scalar("u32", 4, typed(Uint32Array.of(4e9))),
    scalar("i32", 5, typed(Int32Array.of(-8))),
    scalar("f32", 6, typed(Float32Array.of(0.5))),
    scalar("bool", 7, Uint8Array.of(1)),
    text("text", "grüße"),
    scalar("texts", 9, join([8, 2n, "a", "b"])),
    scalar("nested", 9, join([9, 1n, 4, 2n, 5, 6])),
    scalar("u64", 10, typed(BigUint64Array.of(9n))),
    scalar("large", 10, typed(BigUint64Array.of(2n ** 60n))),
    scalar("i64", 11, typed(BigInt64Array.of(-9n))),
    scalar("f64", 12, typed(Float64Array.of(0.1))),
  ], []);
  return withBytes(bytes, async (path) => {
    using opened = await openGguf(path);
    assertEquals(Object.fromEntries(opened.values), {
      ...{ u8: 200, i8: -56, u16: 60000, i16: -7, u32: 4e9, i32: -8, f32: 0.5, bool: true, text: "grüße" },
      ...{ texts: ["a", "b"], nested: [[5, 6]], u64: 9, large: 2n ** 60n, i64: -9, f64: 0.1 },
    });
    assertEquals(opened.metadata, { text: "grüße" });
  });
});

Deno.test("openGguf() reads tensors in row-major order, in ranges, from version 2 too", async () => {
  const values = [1, 2, 3, 4, 5, 6];
  const data = new Uint8Array(Float32Array.from([...values, 0, 0]).buffer);
  for (const version of [2, 3]) {
    await withBytes(file([], [info("x", [2, 3], 0, 0)], data, { version }), async (path) => {
      using opened = await openGguf(path);
      const tensor = opened.tensors.get("x")!;
      assertEquals([tensor.dtype, tensor.shape], ["F32", [2, 3]]);
      assertEquals([...await tensor.readFloat32()], values);
      assertEquals([...new Float32Array((await tensor.readRows(1, 2)).buffer)], [4, 5, 6]);
    });
  }
});

Deno.test("openGguf() reads a header that is longer than the first piece it takes", () =>
  withBytes(file([text("long", "x".repeat(600_000))], []), async (path) => {
    using opened = await openGguf(path);
    assertEquals((opened.values.get("long") as string).length, 600_000);
  }));

const WRITTEN: ReadonlyMap<string, WrittenValue> = new Map([
  ["general.architecture", { type: "string", value: "llama" }],
  ["some.count", { type: "uint32", value: 7 }],
  ["some.number", { type: "float32", value: 0.25 }],
]);

Deno.test("createGgufWriter() writes what openGguf() reads, in any order of tensors and with equal bytes", () =>
  inTemporaryFolder(async (folder) => {
    let run = 0;
    const entry = fc.record({
      shape: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
      dtype: fc.constantFrom("F32" as const, "F16" as const, "BF16" as const),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(entry, { minLength: 1, maxLength: 5 }),
        fc.nat(100),
        async (entries, seed) => {
          const descriptions = entries.map((description, i) => ({ ...description, name: `t${i}` }));
          const contents = new Map(descriptions.map(({ name, shape, dtype }, i) => {
            const width = dtype === "F32" ? 4 : 2;
            const count = shape.reduce((product, size) => product * size, 1);
            return [name, new Uint8Array(gaussians(count * width, seed + i).map((value) => 40 * value))];
          }));
          const written: string[] = [];
          for (const order of [descriptions, [...descriptions].reverse()]) {
            const path = joinPath(folder, `${run++}.gguf`);
            const writer = await createGgufWriter(path, order, WRITTEN);
            for (const { name } of order) await writer.write(name, contents.get(name)!);
            await writer.finish();
            written.push((await Deno.readFile(path)).toHex());
            using opened = await openGguf(path);
            assertEquals([...opened.values], [...WRITTEN].map(([key, { value }]) => [key, value]));
            for (const { name, dtype, shape } of descriptions) {
              const tensor = opened.tensors.get(name)!;
              assertEquals([tensor.dtype, tensor.shape], [dtype, shape]);
              assertEquals(await tensor.read(), contents.get(name)!);
            }
          }
          assertEquals(written[0], written[1]);
        },
      ),
      { seed: 3, numRuns: 30 },
    );
  }));

Deno.test("createGgufWriter() refuses what GGUF cannot hold, and leaves no file behind", () =>
  inTemporaryFolder(async (folder) => {
    const path = joinPath(folder, "x.gguf");
    const entry = { name: "x", dtype: "F32", shape: [1] } as const;
    const create = (entries: Parameters<typeof createGgufWriter>[1]) => () =>
      createGgufWriter(path, entries, new Map());
    await assertRefused(create([entry, entry]), "duplicate_key");
    await assertRefused(create([{ ...entry, shape: [1, 1, 1, 1, 1] }]), "too_many_dimensions");
    await assertRefused(create([{ ...entry, dtype: "F8_E4M3" }]), "unsupported_dtype");
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
    await Deno.writeTextFile(path, "mine");
    await assertRefused(create([entry]), "target_exists");
    assertEquals(await Deno.readTextFile(path), "mine");
  }));

type Case = readonly [what: string, code: string, bytes: Uint8Array<ArrayBuffer>, fix?: string];
const huge = 2n ** 62n;
const HOSTILE: readonly Case[] = [
  ["the magic is another", "gguf_invalid", file([], [], bytes8, { magic: "GGML" })],
  ["the version is 1", "gguf_version", file([], [], bytes8, { version: 1 }), "current llama.cpp"],
  ["the file is big-endian", "gguf_version", file([], [], bytes8, { version: 3 << 24 }), "little-endian"],
  ["the file is empty", "metadata_incomplete_buffer", new Uint8Array(0)],
  [
    "the file ends in its header",
    "metadata_incomplete_buffer",
    file([text("key", "value")], []).slice(0, 40),
  ],
  [
    "the tensors are too many",
    "too_many_tensors",
    join([new TextEncoder().encode("GGUF"), 3, huge >> 20n, 0n]),
  ],
  ["the values are too many", "too_many_values", join([new TextEncoder().encode("GGUF"), 3, 0n, 200_000n])],
  ["a count is beyond 2⁵³", "unsafe_integer", join([new TextEncoder().encode("GGUF"), 3, huge, 0n])],
  ["a text is longer than the file", "metadata_incomplete_buffer", file([["key", 8, join([1n << 40n])]], [])],
  [
    "an array is longer than the file",
    "metadata_incomplete_buffer",
    file([["key", 9, join([0, 1000n])]], []),
  ],
  [
    "an array is very long",
    "gguf_invalid",
    file([["key", 9, join([0, 5_000_000n])]], [], new Uint8Array(5_000_000)),
  ],
  ["arrays nest deep", "gguf_invalid", file([["key", 9, join(Array(9).fill([9, 1n]).flat())]], [])],
  ["a type is unknown", "gguf_invalid", file([["key", 13, bytes8]], [])],
  ["a key is not UTF-8", "invalid_header", file([[join([1n, Uint8Array.of(0xff)]), 4, 1]], [])],
  ["a key stands there twice", "duplicate_key", file([uint32("a", 1), uint32("a", 2)], [])],
  ["a tensor stands there twice", "duplicate_key", file([], [info("x", [0], 0, 0), info("x", [0], 0, 0)])],
  ["the alignment is no power of 2", "gguf_invalid", file([uint32("general.alignment", 24)], [])],
  ["the alignment is a text", "gguf_invalid", file([text("general.alignment", "32")], [])],
  ["a tensor has five dimensions", "too_many_dimensions", file([], [info("x", [1, 1, 1, 1, 1], 0, 0)])],
  ["a tensor is quantised", "unsupported_dtype", file([], [info("x", [32], 8, 0)], bytes8), "--outtype f32"],
  [
    "a shape's product overflows",
    "validation_overflow",
    file([], [info("x", [1n << 40n, 1n << 40n], 0, 0)]),
    "fetch it again",
  ],
  ["an offset is odd", "invalid_offset", file([], [info("x", [1], 0, 4)], new Uint8Array(64))],
  [
    "two tensors overlap",
    "invalid_offset",
    file([], [info("x", [9], 0, 0), info("y", [1], 0, 32)], new Uint8Array(96)),
  ],
  ["a tensor ends behind the file", "metadata_incomplete_buffer", file([], [info("x", [99], 0, 0)], bytes8)],
  [
    "an offset is behind the file",
    "metadata_incomplete_buffer",
    file([], [info("x", [1], 0, 1n << 40n)], bytes8),
  ],
];
for (const [what, code, bytes, fix = "fetch or write it again"] of HOSTILE) {
  Deno.test(`openGguf() answers ${code} when ${what}`, () =>
    withBytes(bytes, async (path) => {
      const error = await assertRefused(() => openGguf(path), code);
      assertStringIncludes(error.fix, fix);
      assertStringIncludes(error.where, "x.gguf");
    }));
}

Deno.test("openGguf() answers header_too_large when the header is longer than the limit", () =>
  withBytes(file([text("long", "x".repeat(5000))], []), async (path) => {
    await assertRefused(() => openGguf(path, { maxHeaderBytes: 1000 }), "header_too_large");
  }));

Deno.test("openGguf() reads or refuses any bytes, and fails in no other way", () => {
  const valid = float32File([text("general.architecture", "llama"), float32("alpha", 1)], [
    { name: "a", shape: [2, 3], values: new Float32Array(6) },
    { name: "b", shape: [3, 2], values: new Float32Array(6) },
  ]);
  return inTemporaryFolder(async (folder) => {
    const path = joinPath(folder, "x.gguf");
    const outcomes = new Set<string>();
    const change = fc.record({ at: fc.nat(valid.length - 1), value: fc.integer({ min: 0, max: 255 }) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(valid.length), { nil: undefined, freq: 4 }),
        async (changes, length) => {
          const bytes = valid.slice(0, length);
          for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
          await Deno.writeFile(path, bytes);
          try {
            using opened = await openGguf(path);
            for (const tensor of opened.tensors.values()) await tensor.read();
            outcomes.add("read");
          } catch (error) {
            assert(error instanceof FormatError, String(error));
            outcomes.add(error.code);
          }
        },
      ),
      { seed: 4, numRuns: 800 },
    );
    assert(outcomes.size > 4, [...outcomes].join());
  });
});
