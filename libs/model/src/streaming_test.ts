import { assertAlmostEquals, assertEquals, assertLess, assertRejects, assertThrows } from "@std/assert";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError } from "@lora-loom/formats";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import { shardModel } from "@lora-loom/testing";
import type { BaseModel, Deltas } from "./base_model.ts";
import { ModelError } from "./errors.ts";
import { openModel } from "./open_model.ts";
import { forwardHolding } from "./run_forward.ts";
import { exampleModel } from "./test_support/example_model.ts";
import { openSoftwareDevice } from "./test_support/software_device.ts";

const TINY_LLAMA = exampleModel("tiny-llama");
const SEQUENCES = [Uint32Array.of(1, 5, 900, 2047, 5), Uint32Array.of(1, 7, 30)];

async function withShards(body: (folder: string, shards: readonly string[]) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "lora-loom-shards-"));
  try {
    await body(folder, await shardModel(TINY_LLAMA.base, folder, 3));
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function withDevices(body: (device: Device) => Promise<void>): Promise<void> {
  await body(new CpuDevice());
  await using software = await openSoftwareDevice();
  await body(software);
}

const EOS = 2;

async function outputsOf(device: Device, model: BaseModel, deltas: Deltas) {
  using logits = await forwardHolding(model, SEQUENCES, deltas);
  const completions = await model.generate(SEQUENCES, deltas, { maxNewTokens: 4, eos: EOS });
  return { logits: await device.download(logits), completions };
}

Deno.test("openModel() computes the same to the last bit whether weights are resident or streamed from shards", async () => {
  await withShards(async (folder) => {
    await withDevices(async (device) => {
      const deltas = await TINY_LLAMA.adapterDeltas(device, "language");
      using resident = await openModel(device, TINY_LLAMA.base, { residency: "resident" });
      using streamed = await openModel(device, folder, { residency: "streamed" });
      assertEquals([resident.residency, streamed.residency], ["resident", "streamed"]);
      assertEquals(await outputsOf(device, streamed, deltas), await outputsOf(device, resident, deltas));
    });
  });
});
