import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { assertRefused, inTemporaryFolder, rawFile, rawFloat32File, REPOSITORY } from "../test_support.ts";
import { openSafetensors } from "./read.ts";

/** The same file through JSON.parse and DataView. */
function readIndependently(bytes: Uint8Array<ArrayBuffer>, name: string): number[] {
  const view = new DataView(bytes.buffer);
  const length = Number(view.getBigUint64(0, true));
  const { dtype, data_offsets: [begin, end] } =
    JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)))[name];
  assertEquals(dtype, "F32");
  return Array.from(
    { length: (end - begin) / 4 },
    (_, i) => view.getFloat32(8 + length + begin + 4 * i, true),
  );
}

Deno.test("openSafetensors() reads an adapter of PEFT as an independent reader does", async () => {
  const path = join(REPOSITORY, "examples/tiny-llama/adapters/language/adapter_model.safetensors");
  const bytes = await Deno.readFile(path);
  using file = await openSafetensors(path);
  assertEquals(file.tensors.size, 56);
  assertEquals(file.metadata, { format: "pt" });
  for (const [name, tensor] of file.tensors) {
    assertEquals([...await tensor.readFloat32()], readIndependently(bytes, name), name);
  }
});

Deno.test("StoredTensor.read() gives an aligned copy when the file's data is unaligned", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "odd.safetensors");
    const header =
      '{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}';
    const buffer = new Uint8Array(9);
    new DataView(buffer.buffer).setFloat32(1, 1.5, true);
    new DataView(buffer.buffer).setFloat32(5, -2.25, true);
    await Deno.writeFile(path, rawFile(`${header}${" ".repeat((1 + 8 - header.length % 8) % 8)}`, buffer));
    using file = await openSafetensors(path);
    const bytes = await file.tensors.get("f")!.read();
    assertEquals([bytes.byteOffset, bytes.buffer.byteLength], [0, 8]);
    assertEquals([...await file.tensors.get("f")!.readFloat32()], [1.5, -2.25]);
  }));

Deno.test("StoredTensor.readRows() gives the bytes of a range of rows", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "rows.safetensors");
    await Deno.writeFile(
      path,
      rawFloat32File({ t: { shape: [4, 3], values: Float32Array.from({ length: 12 }, (_, i) => i) } }),
    );
    using file = await openSafetensors(path);
    const tensor = file.tensors.get("t")!;
    assertEquals([...new Float32Array((await tensor.readRows(1, 3)).buffer)], [3, 4, 5, 6, 7, 8]);
    assertEquals((await tensor.readRows(4, 4)).length, 0);
    for (const [start, end] of [[-1, 2], [2, 1], [0, 5], [0.5, 2], [NaN, 2]] as const) {
      await assertRefused(() => tensor.readRows(start, end), "invalid_range");
    }
  }));

Deno.test("StoredTensor.readRows() refuses rows that end inside a byte", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "nibbles.safetensors");
    await Deno.writeFile(
      path,
      rawFile('{"t":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}', new Uint8Array(3)),
    );
    using file = await openSafetensors(path);
    await assertRefused(() => file.tensors.get("t")!.readRows(0, 1), "misaligned_slice");
    assertEquals((await file.tensors.get("t")!.readRows(0, 2)).length, 3);
    await assertRefused(() => file.tensors.get("t")!.readFloat32(), "unsupported_dtype");
  }));

Deno.test("StoredTensor.read() answers file_closed after close, and file_changed when the file has shrunk", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "t.safetensors");
    await Deno.writeFile(path, rawFloat32File({ t: { shape: [1000], values: new Float32Array(1000) } }));
    const file = await openSafetensors(path);
    await Deno.truncate(path, 400);
    await assertRefused(() => file.tensors.get("t")!.read(), "file_changed");
    file.close();
    file.close();
    await assertRefused(() => file.tensors.get("t")!.read(), "file_closed");
  }));

Deno.test("SafetensorsFile.close() waits for the reads under way", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "t.safetensors");
    await Deno.writeFile(
      path,
      rawFloat32File({ t: { shape: [100_000], values: new Float32Array(100_000).fill(7) } }),
    );
    const file = await openSafetensors(path);
    const reading = Promise.all(Array.from({ length: 20 }, () => file.tensors.get("t")!.readFloat32()));
    file.close();
    for (const values of await reading) assertEquals(values.at(-1), 7);
  }));

Deno.test("openSafetensors() names the problem when the path is missing, a folder or a pipe", () =>
  inTemporaryFolder(async (folder) => {
    await assertRefused(() => openSafetensors(join(folder, "missing.safetensors")), "not_found");
    await assertRefused(() => openSafetensors(folder), "not_a_file");
    const pipe = join(folder, "pipe");
    assert((await new Deno.Command("mkfifo", { args: [pipe] }).output()).success);
    await assertRefused(() => openSafetensors(pipe), "not_a_file");
  }));

Deno.test("openSafetensors() leaves no file open when it refuses one", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "bad.safetensors");
    await Deno.writeFile(path, rawFile("no header"));
    const openFiles = async () => (await Array.fromAsync(Deno.readDir("/proc/self/fd"))).length;
    const before = await openFiles();
    for (let i = 0; i < 50; i++) await assertRefused(() => openSafetensors(path), "invalid_header_start");
    assert(await openFiles() < before + 25, "descriptors leak");
  }));
