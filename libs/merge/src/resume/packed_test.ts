import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromExactJson, toExactJson } from "./exact_json.ts";
import { pack, unpack } from "./packed.ts";

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

Deno.test("toExactJson() keeps every number to the bit, and token ids as they are", () => {
  const value = {
    numbers: [0, -0, NaN, Infinity, -Infinity, 1 / 3, 5e-324, Number.MAX_VALUE, 2 ** 53],
    sequences: [{ tokens: Uint32Array.of(0, 1, 2 ** 32 - 1), answerStart: 1 }, { tokens: new Uint32Array() }],
    rest: [null, true, "$number", { $: 1 }, {}],
  };
  const again = fromExactJson(toExactJson(value)) as typeof value;
  assertEquals(again, value);
  again.numbers.forEach((number, index) => assert(Object.is(number, value.numbers[index]), String(number)));
});

Deno.test("unpack() gives back what pack() was given, float32 and float64, wherever the bytes begin", () => {
  const packed = {
    value: { name: "ä", loss: NaN },
    tensors: [
      { shape: [1, 3], values: Float32Array.of(0.1, -0, NaN) },
      { shape: [0, 2], values: new Float64Array(0) },
      { shape: [2], values: Float64Array.of(1 / 3, 5e-324) },
    ],
  };
  const bytes = joined(pack(packed));
  assertEquals(unpack(bytes), packed);
  const shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  assertEquals(unpack(shifted.subarray(3)), packed);
  assertThrows(() => unpack(bytes.subarray(0, bytes.length - 1).slice()));
});
