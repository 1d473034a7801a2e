import { assertEquals, assertThrows } from "@std/assert";
import { TensorError } from "../errors.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import { add } from "./add.ts";
import { concatColumns, concatRows } from "./concat.ts";
import { copy } from "./copy.ts";
import { gemm } from "./gemm.ts";
import { reshape } from "./reshape.ts";
import { sliceColumns, sliceRows } from "./slice.ts";

/** start, start + 1, … */
function counting(count: number, start = 0): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => start + i);
}

testOnEachDevice("concatRows() and concatColumns() put matrices together when they fit", async (device) => {
  using a = device.upload(counting(6), [2, 3]);
  using b = device.upload(counting(3, 10), [1, 3]);
  using c = device.upload(counting(4, 20), [2, 2]);
  using stacked = concatRows([a, b, a]);
  using beside = concatColumns([c, a]);
  assertEquals(stacked.shape, [5, 3]);
  assertEquals([...await device.download(stacked)], [0, 1, 2, 3, 4, 5, 10, 11, 12, 0, 1, 2, 3, 4, 5]);
  assertEquals(beside.shape, [2, 5]);
  assertEquals([...await device.download(beside)], [20, 21, 0, 1, 2, 22, 23, 3, 4, 5]);
  assertEquals(assertThrows(() => concatRows([a, c]), TensorError).code, "shape_mismatch");
  assertEquals(assertThrows(() => concatColumns([a, b]), TensorError).code, "shape_mismatch");
  assertEquals(assertThrows(() => concatRows([]), TensorError).code, "no_tensor");
});

testOnEachDevice("sliceRows() and sliceColumns() undo concatenation", async (device) => {
  using x = device.upload(counting(63 * 65), [63, 65]);
  using left = sliceColumns(x, 0, 7);
  using right = sliceColumns(x, 7, 65);
  using joined = concatColumns([left, right]);
  assertEquals(await device.download(joined), await device.download(x));
  using middle = sliceRows(x, 5, 8);
  assertEquals(middle.shape, [3, 65]);
  assertEquals([...await device.download(middle)], [...counting(3 * 65, 5 * 65)]);
  using none = sliceRows(x, 4, 4);
  assertEquals((await device.download(none)).length, 0);
  for (const [start, end] of [[-1, 2], [3, 2], [0, 64], [0.5, 2]] as const) {
    assertEquals(assertThrows(() => sliceRows(x, start, end), TensorError).code, "range_mismatch");
  }
});

testOnEachDevice("reshape() shares memory until both tensors are disposed", async (device) => {
  const before = device.memory.bytes;
  const x = device.upload(counting(4), [2, 2]);
  const held = device.memory.bytes;
  const y = reshape(x, [4, 1]);
  assertEquals(device.memory.bytes, held);
  add(x, x, { into: x });
  x.dispose();
  assertEquals(device.memory.bytes, held);
  assertEquals([...await device.download(y)], [0, 2, 4, 6]);
  assertEquals(assertThrows(() => reshape(y, [3]), TensorError).code, "shape_mismatch");
  y.dispose();
  assertEquals(device.memory.bytes, before);
});

testOnEachDevice("copy() is independent of its source, also for half-used words", async (device) => {
  const bits = Uint16Array.of(0x3c00, 0x4000, 0x4200);
  using x = device.upload(bits, [3], "f16");
  const y = copy(x);
  x.dispose();
  assertEquals([...await device.download(y)], [1, 2, 3]);
  y.dispose();
});

testOnEachDevice("operations refuse tensors that are gone or of two devices", async (device) => {
  const gone = device.upload(counting(4), [2, 2]);
  gone.dispose();
  gone.dispose();
  assertEquals(assertThrows(() => gemm(gone, gone), TensorError).code, "tensor_disposed");
  await using other = await openTestGpu();
  using here = device.zeros([2, 2]);
  using there = other.zeros([2, 2]);
  assertEquals(assertThrows(() => gemm(here, there), TensorError).code, "device_mismatch");
});

Deno.test("slicing and joining work in windows when operands exceed one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 4096 });
  using x = device.upload(counting(67 * 65), [67, 65]);
  using left = sliceColumns(x, 0, 33);
  using right = sliceColumns(x, 33, 65);
  using joined = concatColumns([left, right]);
  assertEquals(await device.download(joined), await device.download(x));
});
