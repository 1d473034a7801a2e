import { assert, assertEquals, assertThrows } from "@std/assert";
import { FormatError } from "../errors.ts";
import { STORED_DTYPES, type StoredDType } from "../safetensors/dtypes.ts";
import { canWiden, widen } from "./widen.ts";

interface FloatFormat {
  readonly exponentBits: number;
  readonly mantissaBits: number;
}

/** IEEE 754 by its definition: sign · 2^exponent · mantissa. */
function decode(code: number, { exponentBits, mantissaBits }: FloatFormat): number {
  const bits = code.toString(2).padStart(1 + exponentBits + mantissaBits, "0");
  const sign = bits[0] === "1" ? -1 : 1;
  const exponent = parseInt(bits.slice(1, 1 + exponentBits), 2);
  const mantissa = parseInt(bits.slice(1 + exponentBits), 2);
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return mantissa === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (2 ** mantissaBits + mantissa) * 2 ** (exponent - bias - mantissaBits);
}

const IEEE_FORMATS: readonly [StoredDType, FloatFormat][] = [
  ["F16", { exponentBits: 5, mantissaBits: 10 }],
  ["BF16", { exponentBits: 8, mantissaBits: 7 }],
  ["F8_E5M2", { exponentBits: 5, mantissaBits: 2 }],
];

for (const [dtype, format] of IEEE_FORMATS) {
  Deno.test(`widen() is exact for every ${dtype}`, () => {
    const width = 1 + format.exponentBits + format.mantissaBits;
    const codes = Array.from({ length: 2 ** width }, (_, code) => code);
    const stored = width === 8 ? Uint8Array.from(codes) : new Uint8Array(Uint16Array.from(codes).buffer);
    const values = widen(dtype, stored, "t");
    assertEquals(codes.filter((code) => !Object.is(values[code], decode(code, format))), []);
  });
}

Deno.test("widen() follows the tables of the 8-bit formats without infinities", () => {
  // Values from the definitions of the formats: largest, smallest subnormal, one, NaN.
  const cases: readonly [StoredDType, readonly (readonly [code: number, value: number])[]][] = [
    ["F8_E4M3", [[0x7e, 448], [0x01, 2 ** -9], [0x38, 1], [0xb8, -1], [0x7f, NaN], [0xff, NaN], [0x80, -0]]],
    ["F8_E4M3FNUZ", [[0x7f, 240], [0x01, 2 ** -10], [0x40, 1], [0xc0, -1], [0x80, NaN]]],
    ["F8_E5M2FNUZ", [[0x7f, 57344], [0x01, 2 ** -17], [0x40, 1], [0xc0, -1], [0x80, NaN]]],
  ];
  for (const [dtype, pairs] of cases) {
    const bytes = Uint8Array.from(pairs, ([code]) => code);
    assertEquals([...widen(dtype, bytes, "t")], pairs.map(([, value]) => value), dtype);
  }
});

Deno.test("widen() reads integers, booleans and doubles", () => {
  const cases: readonly [StoredDType, ArrayBufferView<ArrayBuffer>, readonly number[]][] = [
    ["F32", Float32Array.of(0.1, -0), [Math.fround(0.1), -0]],
    ["F64", Float64Array.of(0.1, 1e300), [Math.fround(0.1), Infinity]],
    ["BOOL", Uint8Array.of(0, 1), [0, 1]],
    ["U8", Uint8Array.of(255), [255]],
    ["I8", Int8Array.of(-128), [-128]],
    ["U16", Uint16Array.of(65535), [65535]],
    ["I16", Int16Array.of(-32768), [-32768]],
    ["U32", Uint32Array.of(2 ** 32 - 1), [2 ** 32]],
    ["I32", Int32Array.of(-7), [-7]],
    ["U64", BigUint64Array.of(2n ** 64n - 1n), [2 ** 64]],
    ["I64", BigInt64Array.of(-16n), [-16]],
  ];
  for (const [dtype, { buffer }, values] of cases) {
    assertEquals([...widen(dtype, new Uint8Array(buffer), "t")], [...values], dtype);
  }
});

Deno.test("widen() refuses the other dtypes by name", () => {
  const others = STORED_DTYPES.filter((dtype) => !canWiden(dtype));
  assertEquals(others, ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "C64"]);
  for (const dtype of others) {
    const error = assertThrows(() => widen(dtype, new Uint8Array(8), "file t"), FormatError, dtype);
    assert(error.code === "unsupported_dtype" && error.where === "file t");
  }
});
