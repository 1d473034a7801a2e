import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import { FormatError } from "../errors.ts";
import { assertRefused, inTemporaryFolder, rawFile } from "../test_support.ts";
import { headerLength, parseHeader } from "./header.ts";
import { DEFAULT_LIMITS, type SafetensorsLimits } from "./limits.ts";
import { openSafetensors } from "./read.ts";

const EIGHT_BYTES = new Uint8Array(8);
const tensor = (fields: string) => `{"t":{${fields}}}`;
const GOOD = tensor('"dtype":"F32","shape":[2],"data_offsets":[0,8]');

/** Every way in which a file can be wrong, with the code that must name it. */
const HOSTILE: readonly [
  name: string,
  code: string,
  file: Uint8Array,
  limits?: Partial<SafetensorsLimits>,
][] = [
  ["an empty file", "header_too_small", new Uint8Array(0)],
  ["seven bytes", "header_too_small", new Uint8Array(7)],
  ["a length over the limit", "header_too_large", rawFile(GOOD, EIGHT_BYTES, 100_000_001n)],
  ["a length of 2^64 - 1", "header_too_large", rawFile(GOOD, EIGHT_BYTES, 2n ** 64n - 1n)],
  ["a length of 2^53 + 1", "header_too_large", rawFile(GOOD, EIGHT_BYTES, 2n ** 53n + 1n)],
  ["a header over a lowered limit", "header_too_large", rawFile(GOOD, EIGHT_BYTES), { maxHeaderBytes: 10 }],
  ["a length past the end", "invalid_header_length", rawFile(GOOD, EIGHT_BYTES, 1000n)],
  ["a length past the end by one", "invalid_header_length", rawFile("{}", undefined, 3n)],
  ["a header that is not UTF-8", "invalid_header", rawFile(new Uint8Array([0x7b, 0xff, 0x7d]))],
  ["no header", "invalid_header_start", rawFile("")],
  ["a header that is an array", "invalid_header_start", rawFile("[]")],
  ["a byte order mark", "invalid_header_start", rawFile("\ufeff{}")],
  ["a header that is no JSON", "invalid_header_deserialization", rawFile('{"t":')],
  ["text behind the header", "invalid_header_deserialization", rawFile("{} x")],
  ["deep nesting", "invalid_header_deserialization", rawFile(`{"t":${"[".repeat(1e6)}`)],
  ["a NUL-padded header", "header_nul_padding", rawFile("{}\0\0\0\0\0\0")],
  ["two tensors of one name", "duplicate_key", rawFile(`${GOOD.slice(0, -1)},${GOOD.slice(1)}`, EIGHT_BYTES)],
  ["two metadata entries", "duplicate_key", rawFile('{"__metadata__":{},"__metadata__":{}}')],
  ["two equal metadata keys", "duplicate_key", rawFile('{"__metadata__":{"a":"1","a":"2"}}')],
  [
    "two dtypes in a tensor",
    "duplicate_key",
    rawFile(tensor('"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  ["a metadata value that is a number", "metadata_not_string", rawFile('{"__metadata__":{"a":1}}')],
  ["metadata that is null", "metadata_not_string", rawFile('{"__metadata__":null}')],
  ["metadata that is a string", "metadata_not_string", rawFile('{"__metadata__":"pt"}')],
  ["a tensor that is null", "invalid_header_deserialization", rawFile('{"t":null}')],
  [
    "a tensor without dtype",
    "invalid_header_deserialization",
    rawFile(tensor('"shape":[2],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "a tensor without shape",
    "invalid_header_deserialization",
    rawFile(tensor('"dtype":"F32","data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "a tensor without offsets",
    "invalid_header_deserialization",
    rawFile(tensor('"dtype":"F32","shape":[2]'), EIGHT_BYTES),
  ],
  [
    "an unknown key in a tensor",
    "invalid_header_deserialization",
    rawFile(tensor('"dtype":"F32","shape":[2],"data_offsets":[0,8],"scale":2'), EIGHT_BYTES),
  ],
  [
    "three offsets",
    "invalid_header_deserialization",
    rawFile(tensor('"dtype":"F32","shape":[2],"data_offsets":[0,8,8]'), EIGHT_BYTES),
  ],
  [
    "a negative dimension",
    "invalid_header_deserialization",
    rawFile(tensor('"dtype":"F32","shape":[-2],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "a fractional dimension",
    "invalid_header_deserialization",
    rawFile(tensor('"dtype":"F32","shape":[2.0],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "a shape of strings",
    "invalid_header_deserialization",
    rawFile(tensor('"dtype":"F32","shape":["2"],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "an unknown dtype",
    "unknown_dtype",
    rawFile(tensor('"dtype":"Q4_K","shape":[2],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "a dtype named like an object's property",
    "unknown_dtype",
    rawFile(tensor('"dtype":"toString","shape":[2],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "a dimension beyond 2^53",
    "unsafe_integer",
    rawFile(tensor('"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "an offset beyond 2^53",
    "unsafe_integer",
    rawFile(tensor('"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]'), EIGHT_BYTES),
  ],
  [
    "a product that overflows",
    "validation_overflow",
    rawFile(tensor('"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "a product that would wrap to 0 in 64 bits",
    "validation_overflow",
    rawFile(tensor('"dtype":"U8","shape":[4294967296,4294967296,1],"data_offsets":[0,0]')),
  ],
  [
    "a product that overflows before a 0",
    "validation_overflow",
    rawFile(tensor('"dtype":"F32","shape":[4503599627370496,4503599627370496,0],"data_offsets":[0,0]')),
  ],
  [
    "a sub-byte tensor that ends inside a byte",
    "misaligned_slice",
    rawFile(tensor('"dtype":"F4","shape":[3],"data_offsets":[0,2]'), new Uint8Array(2)),
  ],
  [
    "a 6-bit tensor that ends inside a byte",
    "misaligned_slice",
    rawFile(tensor('"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]'), new Uint8Array(2)),
  ],
  [
    "more dimensions than allowed",
    "too_many_dimensions",
    rawFile(tensor(`"dtype":"F32","shape":[${Array(65).fill(1)}],"data_offsets":[0,4]`), new Uint8Array(4)),
  ],
  [
    "more tensors than allowed",
    "too_many_tensors",
    rawFile(
      '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    ),
    { maxTensors: 1 },
  ],
  [
    "fewer bytes than the shape needs",
    "tensor_invalid_info",
    rawFile(tensor('"dtype":"F32","shape":[3],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "more bytes than the shape needs",
    "tensor_invalid_info",
    rawFile(tensor('"dtype":"F32","shape":[1],"data_offsets":[0,8]'), EIGHT_BYTES),
  ],
  [
    "an end before the begin",
    "invalid_offset",
    rawFile(tensor('"dtype":"F32","shape":[2],"data_offsets":[8,0]'), EIGHT_BYTES),
  ],
  [
    "a hole at the start",
    "invalid_offset",
    rawFile(tensor('"dtype":"F32","shape":[1],"data_offsets":[4,8]'), EIGHT_BYTES),
  ],
  [
    "a hole between tensors",
    "invalid_offset",
    rawFile(
      '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[6,8]}}',
      EIGHT_BYTES,
    ),
  ],
  [
    "overlapping tensors",
    "invalid_offset",
    rawFile(
      '{"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
      EIGHT_BYTES,
    ),
  ],
  [
    "one range used twice",
    "invalid_offset",
    rawFile(
      '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
      EIGHT_BYTES,
    ),
  ],
  [
    "an offset past the end",
    "metadata_incomplete_buffer",
    rawFile(tensor('"dtype":"F32","shape":[4],"data_offsets":[0,16]'), EIGHT_BYTES),
  ],
  ["a file cut short", "metadata_incomplete_buffer", rawFile(GOOD, new Uint8Array(7))],
  ["trailing bytes", "metadata_incomplete_buffer", rawFile(GOOD, new Uint8Array(9))],
  ["trailing bytes behind no tensors", "metadata_incomplete_buffer", rawFile("{}", new Uint8Array(1))],
];

for (const [name, code, bytes, limits] of HOSTILE) {
  Deno.test(`openSafetensors() answers ${code} when given ${name}`, () =>
    inTemporaryFolder(async (folder) => {
      const path = join(folder, "hostile.safetensors");
      await Deno.writeFile(path, bytes);
      const error = await assertRefused(() => openSafetensors(path, limits), code);
      assertStringIncludes(error.where, path);
    }));
}

/** Files that look odd and are legal. */
const LEGAL: readonly [name: string, file: Uint8Array, tensors: number][] = [
  ["no tensors", rawFile("{}"), 0],
  ["space padding", rawFile("{}      "), 0],
  ["leading whitespace", rawFile("  {}"), 0],
  ["a scalar", rawFile(tensor('"dtype":"F64","shape":[],"data_offsets":[0,8]'), EIGHT_BYTES), 1],
  ["an empty tensor", rawFile(tensor('"dtype":"F32","shape":[0,5],"data_offsets":[0,0]')), 1],
  [
    "an empty tensor between others",
    rawFile(
      '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"e":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
      EIGHT_BYTES,
    ),
    3,
  ],
  [
    "tensors out of order",
    rawFile(
      '{"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
      EIGHT_BYTES,
    ),
    2,
  ],
  [
    "tensors named like object properties",
    rawFile('{"__proto__":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}', EIGHT_BYTES),
    1,
  ],
  [
    "sub-byte tensors of whole bytes",
    rawFile(tensor('"dtype":"F4","shape":[2,8],"data_offsets":[0,8]'), EIGHT_BYTES),
    1,
  ],
  ["metadata alone", rawFile('{"__metadata__":{"format":"pt"}}'), 0],
];

for (const [name, bytes, tensors] of LEGAL) {
  Deno.test(`openSafetensors() reads a file with ${name}`, () =>
    inTemporaryFolder(async (folder) => {
      const path = join(folder, "legal.safetensors");
      await Deno.writeFile(path, bytes);
      using file = await openSafetensors(path);
      assertEquals(file.tensors.size, tensors);
      for (const tensor of file.tensors.values()) {
        assertEquals((await tensor.read()).length, tensor.byteLength);
      }
    }));
}

/** Random tensors as a header and buffer that are correct by construction. */
const validFile = fc.array(
  fc.record({
    name: fc.string({ minLength: 1, maxLength: 12 }),
    dtype: fc.constantFrom(...([["F32", 4], ["F16", 2], ["U8", 1], ["F64", 8]] as const)),
    shape: fc.array(fc.nat(4), { maxLength: 3 }),
  }),
  { maxLength: 5 },
).map((tensors) => {
  const header: Record<string, unknown> = Object.create(null);
  let end = 0;
  for (const { name, dtype: [dtype, size], shape } of tensors) {
    if (name in header || name === "__metadata__") continue;
    const begin = end;
    end += shape.reduce((product, dimension) => product * dimension, size);
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  return rawFile(JSON.stringify(header), new Uint8Array(end));
});

type Mutation = { readonly at: number; readonly remove: number; readonly insert: readonly number[] };
const hostileText = fc.constantFrom(
  "{",
  "}",
  '"',
  ",",
  "0",
  "9",
  "99999999999999999999",
  "-",
  "e9",
  "null",
  "[",
  "]",
  "\\",
  "\0",
  '"F16"',
);
const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.nat(),
  remove: fc.nat(3),
  insert: fc.oneof(
    fc.array(fc.nat(255), { maxLength: 3 }),
    hostileText.map((text) => [...new TextEncoder().encode(text)]),
  ),
});

function mutate(file: Uint8Array, { at, remove, insert }: Mutation): Uint8Array {
  const start = at % (file.length + 1);
  return Uint8Array.from([...file.subarray(0, start), ...insert, ...file.subarray(start + remove)]);
}

/** The rules of the format once more, over JSON.parse. */
function isCorrect(file: Uint8Array): boolean {
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  delete header.__metadata__;
  const covered = new Uint8Array(file.length - 8 - length);
  for (
    const { data_offsets: [begin, end] } of Object.values(header) as { data_offsets: [number, number] }[]
  ) {
    for (let i = begin; i < end; i++) covered[i]!++;
  }
  return covered.every((count) => count === 1);
}

function read(file: Uint8Array) {
  const where = "fuzz.safetensors";
  const length = headerLength(file.subarray(0, 8), file.length, DEFAULT_LIMITS, where);
  return parseHeader(file.subarray(8, 8 + length), file.length - 8 - length, DEFAULT_LIMITS, where);
}

Deno.test("parseHeader() gives a FormatError or a correct reading when a file is mutated at random", () => {
  let refused = 0;
  let accepted = 0;
  fc.assert(
    fc.property(validFile, fc.array(mutation, { maxLength: 3 }), (file, mutations) => {
      const mutated = mutations.reduce<Uint8Array>(mutate, file);
      try {
        read(mutated);
        accepted++;
        assert(isCorrect(mutated));
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        refused++;
        assert(mutations.length > 0, `a correct file was refused: ${error.message}`);
      }
    }),
    { seed: 3, numRuns: 4000 },
  );
  assert(refused > 1000 && accepted > 500, `${refused} refused, ${accepted} accepted`);
});

Deno.test("headerLength() answers header_too_large or a length within the file for any 8 bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 8 }), fc.nat(1000), (prefix, extra) => {
      try {
        const length = headerLength(prefix, 8 + extra, DEFAULT_LIMITS, "fuzz");
        assert(length <= extra);
      } catch (error) {
        assert(error instanceof FormatError);
        assert(["header_too_large", "invalid_header_length"].includes(error.code));
      }
    }),
    { seed: 4 },
  );
});
