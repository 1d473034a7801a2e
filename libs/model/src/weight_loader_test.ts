import { assertEquals, assertRejects } from "@std/assert";
import type { ModelWeights, StoredTensor } from "@lora-loom/formats";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import { openSoftwareDevice } from "./test_support/software_device.ts";
import { WeightLoader } from "./weight_loader.ts";
import { readScattered, WeightReader } from "./weight_reader.ts";

/** A stored matrix whose element (i, j) is 100 · i + j, which remembers what was read of it. */
function storedMatrix(
  rows: number,
  columns: number,
): { stored: ModelWeights; tensor: StoredTensor; reads: string[] } {
  const values = Float32Array.from(
    { length: rows * columns },
    (_, i) => 100 * Math.floor(i / columns) + i % columns,
  );
  const reads: string[] = [];
  const readRows = (start: number, end: number) => {
    reads.push(`${start}-${end}`);
    return Promise.resolve(new Uint8Array(values.slice(start * columns, end * columns).buffer));
  };
  const tensor = {
    name: "w",
    dtype: "F32",
    shape: [rows, columns],
    byteLength: values.byteLength,
    readRows,
    read: () => readRows(0, rows),
    readFloat32: () => Promise.resolve(values),
  } as const;
  const close = () => {};
  const stored = {
    path: "model",
    tensors: new Map([["w", tensor]]),
    metadata: {},
    files: [],
    close,
    [Symbol.dispose]: close,
  };
  return { stored, tensor, reads };
}

async function numbers(device: Device, tensor: Parameters<Device["download"]>[0]): Promise<number[]> {
  return [...await device.download(tensor)];
}

Deno.test("WeightLoader.take() brings a large matrix over in runs of rows", async () => {
  await using software = await openSoftwareDevice();
  for (const device of [new CpuDevice(), software]) {
    const { stored, tensor, reads } = storedMatrix(7, 4);
    using loader = new WeightLoader(device, stored, new WeightReader(), 3 * 16);
    const whole = await loader.take({ name: "w", shape: [7, 4] });
    assertEquals(await numbers(device, whole), [...await tensor.readFloat32()]);
    assertEquals(reads, ["0-3", "3-6", "6-7"]);
  }
});

/** Small integers, which bfloat16 holds, in the upper halves of their floats. */
function storedInBfloat16(rows: number, columns: number): { stored: ModelWeights; values: number[] } {
  const { stored, tensor } = storedMatrix(rows, columns);
  const values = Float32Array.from({ length: rows * columns }, (_, i) => i - 7);
  const halves = new Uint16Array(values.buffer).filter((_, i) => i % 2 === 1);
  const narrow: StoredTensor = {
    ...tensor,
    dtype: "BF16",
    byteLength: halves.byteLength,
    readRows: (start, end) =>
      Promise.resolve(new Uint8Array(halves.slice(start * columns, end * columns).buffer)),
  };
  return { stored: { ...stored, tensors: new Map([["w", narrow]]) }, values: [...values] };
}

Deno.test("WeightLoader.take() leaves a matrix as it is stored when asked, unless its elements have to be touched", async () => {
  await using device = await openSoftwareDevice();
  const { stored, values } = storedInBfloat16(5, 4);
  for (const bytesAtOnce of [1000, 2 * 8]) {
    using loader = new WeightLoader(device, stored, new WeightReader(), bytesAtOnce);
    const kept = await loader.take({ name: "w", shape: [5, 4], asStored: true });
    assertEquals(kept.dtype, "bf16");
    assertEquals(await numbers(device, kept), values);
    await loader.checkFinite();
  }
  using loader = new WeightLoader(device, stored);
  const swapped = await loader.take({ name: "w", shape: [4, 5], transposed: true, asStored: true });
  const shifted = await loader.take({ name: "w", shape: [5, 4], offset: 1, asStored: true });
  assertEquals([swapped.dtype, shifted.dtype], ["f32", "f32"]);
  assertEquals(await numbers(device, shifted), values.map((value) => value + 1));
});

Deno.test("WeightLoader.take() widens rows of odd length, which it cannot put together as they are stored", async () => {
  await using device = await openSoftwareDevice();
  const { stored, values } = storedInBfloat16(5, 3);
  using loader = new WeightLoader(device, stored, new WeightReader(), 2 * 6);
  const whole = await loader.take({ name: "w", shape: [5, 3], asStored: true });
  assertEquals(whole.dtype, "f32");
  assertEquals(await numbers(device, whole), values);
});

Deno.test("WeightLoader.take() reads no more than the rows that are asked for", async () => {
  const device = new CpuDevice();
  const { stored, reads } = storedMatrix(5, 2);
  using loader = new WeightLoader(device, stored);
  const part = await loader.take({ name: "w", shape: [5, 2], rows: [1, 3] });
  assertEquals([part.shape, await numbers(device, part)], [[2, 2], [100, 101, 200, 201]]);
  assertEquals(reads, ["1-3"]);
});

Deno.test("readScattered() gathers rows, neighbours in one read", async () => {
  const { tensor, reads } = storedMatrix(200, 1);
  const bytes = await readScattered(tensor, [2, 5, 6, 90, 150]);
  assertEquals([...new Float32Array(bytes.buffer)], [200, 500, 600, 9000, 15000]);
  assertEquals(reads, ["2-7", "90-91", "150-151"]);
});

Deno.test("WeightReader.readAhead() reads once, and tells whoever asks of a failure", async () => {
  const { tensor, reads } = storedMatrix(3, 1);
  const reader = new WeightReader();
  reader.readAhead(tensor, [0, 2]);
  reader.readAhead(tensor, [0, 2]);
  const ahead = await reader.read(tensor, [0, 2]);
  assertEquals([...new Float32Array(ahead.buffer)], [0, 100]);
  assertEquals(reads, ["0-2"]);
  await reader.read(tensor, [0, 2]);
  assertEquals(reads.length, 2);

  const broken = { ...tensor, readRows: () => Promise.reject(new Error("the disk is gone")) };
  reader.readAhead(broken, [0, 1]);
  await assertRejects(() => reader.read(broken, [0, 1]), Error, "the disk is gone");
});
