import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FormatError } from "../errors.ts";
import { narrow, type OutputDType } from "./narrow.ts";

interface Format {
  readonly dtype: OutputDType;
  readonly mantissaBits: number;
  readonly minExponent: number;
  readonly max: number;
  readonly code: string;
}

const FORMATS: readonly Format[] = [
  { dtype: "float16", mantissaBits: 10, minExponent: -14, max: 65504, code: "f16_overflow" },
  {
    dtype: "bfloat16",
    mantissaBits: 7,
    minExponent: -126,
    max: (2 - 2 ** -7) * 2 ** 127,
    code: "bf16_overflow",
  },
  {
    dtype: "float32",
    mantissaBits: 23,
    minExponent: -126,
    max: (2 - 2 ** -23) * 2 ** 127,
    code: "f32_overflow",
  },
];

/** Rounds to nearest, ties to even, by integer arithmetic on a double's fraction: undefined where it overflows. */
function roundExactly(value: number, { mantissaBits, minExponent, max }: Format): number | undefined {
  const magnitude = Math.abs(value);
  if (magnitude === 0) return value;
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, magnitude);
  const stored = Number(bits.getBigUint64(0) >> 52n);
  const fraction = bits.getBigUint64(0) & (2n ** 52n - 1n);
  const significand = stored === 0 ? fraction : fraction + 2n ** 52n;
  const exponent = Math.max(stored, 1) - 1023;
  const dropped = BigInt(52 - mantissaBits + Math.max(0, minExponent - exponent));
  const half = 2n ** (dropped - 1n);
  const rest = significand & (2n * half - 1n);
  let kept = significand >> dropped;
  if (rest > half || (rest === half && kept % 2n === 1n)) kept++;
  const rounded = Number(kept) * 2 ** (Math.max(exponent, minExponent) - mantissaBits);
  return rounded > max ? undefined : Math.sign(value) * rounded;
}

/** Stored bytes as numbers, through the built-in arrays and a shift. */
function decode(bytes: Uint8Array<ArrayBuffer>, dtype: OutputDType): number[] {
  if (dtype === "float32") return [...new Float32Array(bytes.buffer)];
  if (dtype === "float16") return [...new Float16Array(bytes.buffer)];
  return [
    ...new Float32Array(Uint32Array.from(new Uint16Array(bytes.buffer), (word) => word * 65536).buffer),
  ];
}

for (const format of FORMATS) {
  /** Doubles at and beside the ties and borders of the format. */
  const nearTies = fc.tuple(
    fc.integer({ min: 0, max: 2 ** (format.mantissaBits + 2) }),
    fc.integer({ min: format.minExponent - format.mantissaBits - 4, max: 40 }),
    fc.constantFrom(0, 2 ** -30, -(2 ** -30), 2 ** -51, -(2 ** -51)),
    fc.boolean(),
  ).map(([steps, exponent, nudge, isNegative]) =>
    (isNegative ? -1 : 1) * steps * (1 + nudge) * 2 ** exponent
  );
  const anyDouble = fc.oneof(nearTies, fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constant(-0));

  Deno.test(`narrow() rounds any double once to the nearest ${format.dtype}, ties to even`, () => {
    fc.assert(
      fc.property(anyDouble, (value) => {
        const expected = roundExactly(value, format);
        if (expected === undefined) {
          assertEquals(
            assertThrows(() => narrow(Float64Array.of(value), format.dtype, "m"), FormatError).code,
            format.code,
          );
        } else {
          assertEquals(decode(narrow(Float64Array.of(value), format.dtype, "m"), format.dtype), [expected]);
        }
      }),
      { seed: 7, numRuns: 5000 },
    );
  });

  Deno.test(`narrow() to ${format.dtype} answers ${format.code} from the first value that rounds to infinity on`, () => {
    const step = format.max * 2 ** -format.mantissaBits;
    const border = format.max + step / 2 / (2 - 2 ** -format.mantissaBits);
    assertEquals(decode(narrow(Float64Array.of(border * (1 - 2 ** -50)), format.dtype, "m"), format.dtype), [
      format.max,
    ]);
    const error = assertThrows(
      () => narrow(Float64Array.of(0, -border * (1 + 2 ** -50)), format.dtype, "file q_proj"),
      FormatError,
    );
    assertEquals([error.code, error.where], [format.code, "file q_proj"]);
  });
}

Deno.test("narrow() says which dtypes hold a value that float16 does not", () => {
  const error = assertThrows(
    () => narrow(Float32Array.of(1e6), "float16", "file q_proj"),
    FormatError,
    "1000000",
  );
  assertStringIncludes(error.fix, "bfloat16 or float32");
});

Deno.test("narrow() answers not_finite for NaN and infinities, in every dtype", () => {
  for (const { dtype } of FORMATS) {
    for (const value of [NaN, Infinity, -Infinity]) {
      const error = assertThrows(() => narrow(Float32Array.of(0, value), dtype, "file q_proj"), FormatError);
      assertEquals([error.code, error.where], ["not_finite", "file q_proj"]);
    }
  }
});

Deno.test("narrow() copies float32 values unchanged into a buffer of their own", () => {
  const values = Float32Array.of(1.5, 2 ** -149, 3e38);
  const bytes = narrow(values, "float32", "m");
  assertEquals(new Float32Array(bytes.buffer), values);
  values[0] = 7;
  assertEquals(new Float32Array(bytes.buffer)[0], 1.5);
});
