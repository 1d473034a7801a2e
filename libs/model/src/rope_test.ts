import { assertAlmostEquals, assertEquals } from "@std/assert";
import { rotaryFrequencies, rotaryTable } from "./rope.ts";

Deno.test("rotaryFrequencies() falls geometrically from 1 to theta^(2/d) / theta", () => {
  const frequencies = rotaryFrequencies({ theta: 10000, scaling: { type: "default" } }, 8);
  assertEquals(frequencies.length, 4);
  [1, 0.1, 0.01, 0.001].forEach((expected, plane) => assertAlmostEquals(frequencies[plane]!, expected));
});

Deno.test("rotaryFrequencies() divides every frequency when scaling is linear", () => {
  const plain = rotaryFrequencies({ theta: 500, scaling: { type: "default" } }, 12);
  const scaled = rotaryFrequencies({ theta: 500, scaling: { type: "linear", factor: 4 } }, 12);
  plain.forEach((frequency, plane) => assertAlmostEquals(scaled[plane]! * 4, frequency));
});

Deno.test("rotaryFrequencies() keeps short, divides long and blends middle wavelengths when scaling is llama3", () => {
  const scaling = {
    type: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalLength: 8192,
  } as const;
  const scaled = rotaryFrequencies({ theta: 500000, scaling }, 128);
  // Written in terms of wavelengths, as Llama 3.1 was published, where the code counts turns.
  let kept = 0, divided = 0, blended = 0;
  scaled.forEach((actual, plane) => {
    const plain = Math.exp(-Math.log(500000) * plane / 64);
    const wavelength = 2 * Math.PI / plain;
    let expected: number;
    if (wavelength < 8192 / 4) {
      expected = plain;
      kept++;
    } else if (wavelength > 8192 / 1) {
      expected = plain / 8;
      divided++;
    } else {
      const smooth = (8192 / wavelength - 1) / (4 - 1);
      expected = (1 - smooth) * plain / 8 + smooth * plain;
      blended++;
    }
    assertAlmostEquals(actual, expected, 1e-12 * expected);
  });
  assertEquals(kept + divided + blended, 64);
  assertEquals([kept > 0, divided > 0, blended > 0], [true, true, true]);
});

Deno.test("rotaryFrequencies() keeps eight significant bits when they are rounded to bfloat16", () => {
  const exact = rotaryFrequencies({ theta: 10000, scaling: { type: "default" } }, 64);
  const rounded = rotaryFrequencies(
    { theta: 10000, scaling: { type: "default" }, roundToBfloat16: true },
    64,
  );
  exact.forEach((frequency, plane) => {
    const unit = 2 ** (Math.floor(Math.log2(frequency)) - 7);
    assertEquals(rounded[plane], Math.round(frequency / unit) * unit);
  });
});

Deno.test("rotaryTable() holds the cosines of a position's planes, then their sines", () => {
  const table = rotaryTable(Float64Array.of(1, 0.25), 3);
  assertEquals(table.length, 12);
  assertEquals([...table.subarray(0, 4)], [1, 1, 0, 0]);
  [Math.cos(2), Math.cos(0.5), Math.sin(2), Math.sin(0.5)].forEach((expected, i) =>
    assertAlmostEquals(table[8 + i]!, expected)
  );
});
