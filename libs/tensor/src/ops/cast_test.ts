import { seeded } from "@lora-loom/testing";
import { assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import type { DType } from "../tensor.ts";
import { cast } from "./cast.ts";

/** All bit patterns of 16 bits. */
const EVERY_HALF = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** The value of bfloat16 bits, from the format's definition: sign, 8 bits of exponent, 7 of fraction. */
function bf16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 7) & 0xff, bits & 0x7f];
  if (exponent === 0xff) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -133 : (1 + fraction / 128) * 2 ** (exponent - 127));
}

const FINITE_BF16 = [...EVERY_HALF].filter((bits) => bits < 0x8000 && Number.isFinite(bf16Value(bits)));

/** The nearest of the two neighbouring bfloat16 numbers, the even one when there are two; by comparing distances. */
function nearestBf16(value: number): number {
  if (Number.isNaN(value)) return NaN;
  const magnitude = Math.abs(value);
  // Patterns of positive numbers are in the order of their values, so the neighbours are found by bisection.
  let [low, high] = [0, FINITE_BF16.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (bf16Value(middle) <= magnitude) low = middle;
    else high = middle;
  }
  const [below, above] = [bf16Value(low), low + 1 === FINITE_BF16.length ? 2 ** 128 : bf16Value(low + 1)];
  const down = magnitude - below, up = above - magnitude;
  const nearest = down < up || (down === up && low % 2 === 0) ? below : above;
  return Math.sign(value) * (nearest === 2 ** 128 ? Infinity : nearest);
}

/** Float32 numbers that rounding goes wrong on: ties, subnormals, limits, both signs, and random bits of every kind. */
function difficultFloats(): Float32Array<ArrayBuffer> {
  const random = seeded(1);
  const bits = Uint32Array.from({ length: 6001 }, () => Math.floor(random() * 2 ** 32));
  const values = [
    0,
    -0,
    1,
    65504,
    65519.996,
    65520,
    65536,
    2 ** -14,
    2 ** -24,
    2 ** -25,
    2 ** -25 * 1.0001,
    1e-40,
    3e38,
    Infinity,
    NaN,
  ];
  // Halfway between two neighbours in f16 and in bf16, below and above.
  for (const step of [2 ** -11, 2 ** -8]) for (let i = 0; i < 40; i++) values.push(1 + step * i);
  // Around and below the smallest normal f16.
  for (let i = 0; i < 40; i++) values.push(2 ** -25 * i, 2 ** -24 * (i + 0.5));
  return Float32Array.of(...values, ...values.map((value) => -value), ...new Float32Array(bits.buffer));
}

/** Asserts equality element by element, zeros by sign; any NaN equals any other. */
function assertSame(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  assertEquals(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    if (!Object.is(actual[i], expected[i])) {
      throw new Error(`element ${i}: ${actual[i]} against ${expected[i]}`);
    }
  }
}

async function castBits(device: Device, data: ArrayBufferView, count: number, from: DType, to: DType) {
  using x = device.upload(data, [count], from);
  using result = cast(x, to);
  assertEquals(result.dtype, to);
  return await device.downloadBytes(result);
}

testOnEachDevice("cast() widens every 16-bit pattern exactly", async (device) => {
  const fromHalf = new Float32Array((await castBits(device, EVERY_HALF, 65536, "f16", "f32")).buffer);
  assertSame(fromHalf, Float32Array.from(new Float16Array(EVERY_HALF.buffer)));
  const fromBrain = new Float32Array((await castBits(device, EVERY_HALF, 65536, "bf16", "f32")).buffer);
  assertSame(fromBrain, Float32Array.from(EVERY_HALF, bf16Value));
});

testOnEachDevice("cast() rounds f32 to the nearest 16-bit number, ties to even", async (device) => {
  const values = difficultFloats();
  const half = new Float16Array((await castBits(device, values, values.length, "f32", "f16")).buffer);
  assertSame(half, Float16Array.from(values));
  const brain = new Uint16Array((await castBits(device, values, values.length, "f32", "bf16")).buffer);
  assertSame(Float32Array.from(brain, bf16Value), Float32Array.from(values, nearestBf16));
});

testOnEachDevice("cast() goes between the two 16-bit types as through f32", async (device) => {
  const toBrain = new Uint16Array((await castBits(device, EVERY_HALF, 65536, "f16", "bf16")).buffer);
  assertEquals(
    Float32Array.from(toBrain, bf16Value),
    Float32Array.from(new Float16Array(EVERY_HALF.buffer), nearestBf16),
  );
  const toHalf = new Float16Array((await castBits(device, EVERY_HALF, 65536, "bf16", "f16")).buffer);
  assertSame(toHalf, Float16Array.from(EVERY_HALF, bf16Value));
});

testOnEachDevice("cast() keeps the last element when the count is odd", async (device) => {
  for (const count of [1, 3, 129]) {
    const values = Float32Array.from({ length: count }, (_, i) => i - 1.5);
    for (const dtype of ["f16", "bf16"] as const) {
      using x = device.upload(values, [count]);
      using packed = cast(x, dtype);
      using wide = cast(packed, "f32");
      assertEquals((await device.downloadBytes(packed)).length, 2 * count);
      assertEquals([...await device.download(packed)], [...values]);
      assertEquals([...await device.download(wide)], [...values]);
    }
  }
});

testOnEachDevice("cast() converts between f32 and u32", async (device) => {
  using integers = device.upload(Uint32Array.of(0, 1, 16777216, 4000000000), [4]);
  using floats = cast(integers, "f32");
  using back = cast(floats, "u32");
  assertEquals([...await device.download(floats)], [0, 1, 16777216, 4000000000]);
  assertEquals([...await device.download(back)], [0, 1, 16777216, 4000000000]);
  assertEquals(assertThrows(() => cast(integers, "f16"), TensorError).code, "unsupported_cast");
});

Deno.test("cast() works in windows when operands exceed one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 1024 });
  const values = Float32Array.from({ length: 1001 }, (_, i) => i / 8);
  using x = device.upload(values, [7, 143]);
  using half = cast(x, "f16");
  using wide = cast(half, "f32");
  assertEquals([...await device.download(wide)], [...values]);
});
