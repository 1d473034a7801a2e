import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { zipSync } from "fflate";
import { join } from "node:path";
import { FormatError } from "../errors.ts";
import { openNpz } from "../npz/read.ts";
import { assertRefused, inTemporaryFolder, random, rawFloat32File } from "../test_support.ts";
import { openCapture } from "./capture.ts";

const X = new Float32Array(random(1, 6, 4).values);
const Q = "model.layers.0.self_attn.q_proj";

/** A `.npy` file as NumPy writes it. */
function npy(header: string, data: Uint8Array, version = 1): Uint8Array {
  const text = new TextEncoder().encode(header.padEnd(64 * Math.ceil((header.length + 11) / 64) - 10) + "\n");
  const prefix = version === 1
    ? [text.length & 255, text.length >> 8]
    : [text.length & 255, text.length >> 8, 0, 0];
  return Uint8Array.from([
    0x93,
    ...new TextEncoder().encode("NUMPY"),
    version,
    0,
    ...prefix,
    ...text,
    ...data,
  ]);
}

const dict = (descr: string, shape: string, order = "False") =>
  `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }`;
const bytesOf = (values: { buffer: ArrayBuffer }) => new Uint8Array(values.buffer);

type Files = Record<string, Uint8Array>;

function withNpz(
  files: Files | Uint8Array<ArrayBuffer>,
  check: (path: string) => Promise<void>,
  level: 0 | 6 = 0,
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const path = join(folder, "x.npz");
    const bytes = files instanceof Uint8Array ? files : zipSync(files, { level });
    await Deno.writeFile(path, new Uint8Array(bytes));
    await check(path);
  });
}

for (const level of [0, 6] as const) {
  Deno.test(`openCapture() reads inputs and Gram matrices of ${level === 0 ? "savez" : "savez_compressed"}`, () =>
    withNpz({
      [`${Q}.npy`]: npy(dict("<f4", "(2, 3, 4)"), bytesOf(X)),
      "other.gram.npy": npy(dict("<f8", "(2, 2)"), bytesOf(Float64Array.of(1, 2, 2, 5)), 2),
      "fortran.npy": npy(dict("<f4", "(6, 4)", "True"), bytesOf(X)),
      "half.npy": npy(dict("<f2", "(1, 2)"), bytesOf(Float16Array.of(0.5, 3))),
    }, async (path) => {
      using capture = await openCapture(path);
      const { kind, rows, features, tensor } = capture.modules.get(Q)!;
      assertEquals([kind, rows, features], ["inputs", 6, 4]);
      assertEquals(await tensor.readFloat32(), X);
      assertEquals(new Float32Array((await tensor.readRows(1, 2)).buffer), X.slice(12));
      const gram = capture.modules.get("other")!;
      assertEquals([gram.kind, gram.rows, gram.features], ["gram", undefined, 2]);
      assertEquals([...await gram.tensor.readFloat32()], [1, 2, 2, 5]);
      const fortran = await capture.modules.get("fortran")!.tensor.readFloat32();
      assertEquals(fortran, X.map((_, at) => X[(at % 4) * 6 + Math.floor(at / 4)]!));
      assertEquals([...await capture.modules.get("half")!.tensor.readFloat32()], [0.5, 3]);
    }, level));
}

Deno.test("openCapture() reads safetensors", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "x.safetensors");
    await Deno.writeFile(path, rawFloat32File({ [Q]: random(1, 6, 4), "y.gram": random(2, 3, 3) }));
    using capture = await openCapture(path);
    assertEquals([...capture.modules.values()].map(({ name, kind, rows }) => [name, kind, rows]), [
      [Q, "inputs", 6],
      ["y", "gram", undefined],
    ]);
  }));

/** The archive with one byte of its central directory's first entry changed. */
function changed(archive: Uint8Array, at: number, value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(archive);
  const start = bytes.findIndex((_, i) => bytes.subarray(i, i + 4).join() === "80,75,1,2");
  bytes[start + at] = value;
  return bytes;
}

const sound = npy(dict("<f4", "(6, 4)"), bytesOf(X));
const gram = npy(dict("<f4", "(4, 4)"), new Uint8Array(64));
const REFUSED:
  readonly (readonly [what: string, code: string, files: Files | Uint8Array<ArrayBuffer>, fix: string])[] = [
    ["an array is a vector", "capture_invalid", { "x.npy": npy(dict("<f4", "(24,)"), bytesOf(X)) }, "matrix"],
    [
      "an array is empty",
      "capture_invalid",
      { "x.npy": npy(dict("<f4", "(0, 4)"), new Uint8Array(0)) },
      "matrix",
    ],
    [
      "an array holds integers",
      "capture_invalid",
      { "x.npy": npy(dict("<i4", "(6, 4)"), bytesOf(X)) },
      "matrix",
    ],
    ["a Gram matrix is not square", "capture_invalid", { "x.gram.npy": sound }, "matrix"],
    [
      "a module is there in both forms",
      "duplicate_module",
      { "x.npy": sound, "x.gram.npy": gram },
      "one of the two",
    ],
    ["an array is a weight", "capture_invalid", { "x.weight.npy": sound }, "inputs of the modules"],
    ["there are no arrays", "no_modules", {}, "Record"],
    [
      "an array holds objects",
      "pickle_refused",
      { "x.npy": npy(dict("|O", "(1, 1)"), new Uint8Array(8)) },
      "astype",
    ],
    [
      "an array is big-endian",
      "unsupported_dtype",
      { "x.npy": npy(dict(">f4", "(6, 4)"), bytesOf(X)) },
      "astype",
    ],
    [
      "a shape and the data differ",
      "npy_invalid",
      { "x.npy": npy(dict("<f4", "(7, 4)"), bytesOf(X)) },
      "savez",
    ],
    ["a shape overflows", "validation_overflow", {
      "x.npy": npy(dict("<f4", "(9007199254740991, 9)"), bytesOf(X)),
    }, "fetch"],
    [
      "a header is no dict",
      "npy_invalid",
      { "x.npy": npy("{'descr': __import__('os')}", bytesOf(X)) },
      "savez",
    ],
    ["a shape has no end", "npy_invalid", {
      "x.npy": npy(dict("<f4", `(${"1".repeat(50_000)}!`), bytesOf(X)),
    }, "savez"],
    ["a shape is no list", "npy_invalid", { "x.npy": npy(dict("<f4", "(6 4)"), bytesOf(X)) }, "savez"],
    ["a file is no array", "npy_invalid", { "x.npy": new Uint8Array(80) }, "savez"],
    ["a file has another name", "npy_invalid", { "x.txt": sound }, "savez"],
    ["an array has three dimensions in Fortran's order", "npy_invalid", {
      "x.npy": npy(dict("<f4", "(2, 3, 4)", "True"), bytesOf(X)),
    }, "ascontiguousarray"],
    [
      "the archive is cut short",
      "zip_invalid",
      new Uint8Array(zipSync({ "x.npy": sound })).slice(0, 200),
      "savez",
    ],
    ["an array is encrypted", "zip_unsupported", changed(zipSync({ "x.npy": sound }), 8, 1), "numpy.savez"],
    [
      "an array is compressed by LZMA",
      "zip_unsupported",
      changed(zipSync({ "x.npy": sound }), 10, 14),
      "savez",
    ],
    ["the file is no archive", "zip_invalid", new Uint8Array(100), "savez"],
  ];
for (const [what, code, files, fix] of REFUSED) {
  Deno.test(`openCapture() answers ${code} when ${what}`, () =>
    withNpz(files, async (path) => {
      assertStringIncludes((await assertRefused(() => openCapture(path), code)).fix, fix);
    }));
}

Deno.test("openCapture() answers capture_unknown for another kind of file", () =>
  inTemporaryFolder(async (folder) => {
    const error = await assertRefused(() => openCapture(join(folder, "x.pt")), "capture_unknown");
    assertStringIncludes(error.fix, "numpy.savez");
  }));

Deno.test("openNpz() reads or refuses any bytes, and fails in no other way", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "x.npz");
    const outcomes = new Set<string>();
    for (const level of [0, 6] as const) {
      const valid = new Uint8Array(zipSync({ "a.npy": sound, "b.npy": gram }, { level }));
      const change = fc.record({ at: fc.nat(valid.length - 1), value: fc.integer({ min: 0, max: 255 }) });
      await fc.assert(
        fc.asyncProperty(
          fc.array(change, { minLength: 1, maxLength: 3 }),
          fc.option(fc.nat(valid.length), { nil: undefined, freq: 5 }),
          async (changes, length) => {
            const bytes = valid.slice(0, length);
            for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
            await Deno.writeFile(path, bytes);
            try {
              using opened = await openNpz(path);
              for (const tensor of opened.tensors.values()) await tensor.read();
              outcomes.add("read");
            } catch (error) {
              assert(error instanceof FormatError, String(error));
              outcomes.add(error.code);
            }
          },
        ),
        { seed: 14, numRuns: 300 },
      );
    }
    assert(outcomes.has("read") && outcomes.size > 2, [...outcomes].join());
  }));
