import { assertEquals, assertLessOrEqual, assertRejects } from "@std/assert";
import { access, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { CpuDevice } from "@lora-loom/tensor";
import { IterisError } from "../errors.ts";
import { StateStore } from "./state_store.ts";

function someActivations(device: CpuDevice, fill: number) {
  const input = device.upload(new Float64Array(6).fill(fill), [2, 3]);
  const stream = device.upload(Float64Array.of(fill, 1 / 3), [2, 1]);
  return {
    lengths: [2],
    input,
    stream,
    tensors: new Map([["input", input], ["stream", stream]]),
    [Symbol.dispose]() {
      input.dispose();
      stream.dispose();
    },
  };
}

for (
  const [place, budget, deviceBudget] of [["memory", 1000, 0], ["files", 0, 0], ["the device", 0, 1000], [
    "all three",
    32,
    32,
  ]] as const
) {
  Deno.test(`StateStore gives back exactly what was saved when it is kept in ${place}`, async () => {
    const device = new CpuDevice();
    await using store = new StateStore(device, budget, deviceBudget);
    const states = await Promise.all([1, 2, 3].map(async (fill) => {
      using activations = someActivations(device, fill);
      return await store.save(activations);
    }));
    assertLessOrEqual(device.memory.bytes, 2 * deviceBudget);
    for (const [index, state] of states.entries()) {
      const tensors = await store.load(state);
      assertEquals(tensors.get("input")!.shape, [2, 3]);
      assertEquals([...await device.download(tensors.get("input")!)], new Array(6).fill(index + 1));
      assertEquals([...await device.download(tensors.get("stream")!)], [index + 1, 1 / 3]);
      assertEquals(state.lengths, [2]);
      await store.release(state);
    }
    assertEquals(store.hostBytes, 0);
  });
}

Deno.test("StateStore never keeps more in memory than its budget, and removes its files", async () => {
  const device = new CpuDevice();
  const store = new StateStore(device, 100);
  using activations = someActivations(device, 1);
  const [inMemory, inFile] = [await store.save(activations), await store.save(activations)];
  assertEquals(store.hostBytes, 64);
  assertEquals([inMemory.file, typeof inFile.file], [undefined, "string"]);
  await store[Symbol.asyncDispose]();
  await assertRejects(() => access(dirname(inFile.file!)));
});

/** Runs `body` with another folder for temporary files. */
async function withTemporaryFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const [before, folder] = [process.env.TMPDIR, await mkdtemp(join(tmpdir(), "loom-states-"))];
  process.env.TMPDIR = folder;
  try {
    await body(folder);
  } finally {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
    await rm(folder, { recursive: true, force: true });
  }
}

Deno.test("StateStore removes what killed processes left in the temporary folder, and nothing else", () =>
  withTemporaryFolder(async (folder) => {
    const dead = await new Deno.Command(Deno.execPath(), { args: ["--version"], stdout: "null" }).spawn();
    await dead.status;
    const others = [`lora-loom-iteris-${process.ppid}-abc`, "lora-loom-iteris-notes", "else"];
    for (const name of [...others, `lora-loom-iteris-${dead.pid}-abc`]) await mkdir(join(folder, name));
    const device = new CpuDevice();
    await using store = new StateStore(device, 0);
    using activations = someActivations(device, 1);
    const { file } = await store.save(activations);
    const left = [...Deno.readDirSync(folder)].map(({ name }) => join(folder, name));
    assertEquals(left.sort(), [...others.map((name) => join(folder, name)), dirname(file!)].sort());
  }));

Deno.test("StateStore says what to do when states cannot be written", () =>
  withTemporaryFolder(async (folder) => {
    await rm(folder, { recursive: true });
    const device = new CpuDevice();
    await using store = new StateStore(device, 0);
    using activations = someActivations(device, 1);
    const error = await assertRejects(() => store.save(activations), IterisError);
    assertEquals([error.code, error.where], ["scratch_unusable", folder]);
  }));

Deno.test("StateStore gives back what is left on the device when it is disposed", async () => {
  const device = new CpuDevice();
  {
    await using store = new StateStore(device, 0, 1000);
    using activations = someActivations(device, 1);
    await store.save(activations);
  }
  assertEquals(device.memory.bytes, 0);
});
