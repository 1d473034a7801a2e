import {
  assertEquals,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, openModelWeights } from "@lora-loom/formats";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import { inTemporaryFolder, shardModel } from "@lora-loom/testing";
import { llama } from "./architectures/llama.ts";
import type { BaseModel, Deltas } from "./base_model.ts";
import { Decoder } from "./decoder.ts";
import { DecoderModel } from "./decoder_model.ts";
import { readJsonFile } from "./json_file.ts";
import { streamWeights } from "./stream_weights.ts";
import { differentiable } from "./backward/differentiable.ts";
import { ModelError } from "./errors.ts";
import { openModel } from "./open_model.ts";
import { forwardHolding } from "./forward_holding.ts";
import { exampleModel } from "./test_support/example_model.ts";
import { openFamily } from "./test_support/family_fixture.ts";
import { randomModel, SMALL_CONFIG, writeModel } from "./test_support/random_model.ts";
import { WeightReader } from "./weight_reader.ts";
import { openSoftwareDevice } from "./test_support/software_device.ts";

const TINY_LLAMA = exampleModel("tiny-llama");
const SEQUENCES = [Uint32Array.of(1, 5, 900, 2047, 5), Uint32Array.of(1, 7, 30)];

async function withShards(body: (folder: string, shards: readonly string[]) => Promise<void>): Promise<void> {
  await inTemporaryFolder(async (folder) => {
    await body(folder, await shardModel(TINY_LLAMA.base, folder, 3));
  });
}

async function withDevices(body: (device: Device) => Promise<void>): Promise<void> {
  await body(new CpuDevice());
  await using software = await openSoftwareDevice();
  await body(software);
}

const EOS = 2;
/** No token ends a completion. */
const UNENDING = { maxNewTokens: 3, eos: [] };

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

for (const family of ["llama3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2"]) {
  Deno.test(`openModel() streams ${family} as it runs resident`, async () => {
    const { folder } = await openFamily(family);
    const device = new CpuDevice();
    using resident = await openModel(device, folder, { residency: "resident" });
    using streamed = await openModel(device, folder, { residency: "streamed" });
    const tokens = [Uint32Array.of(3, 1, 4, 1, 5), Uint32Array.of(2, 6)];
    using expected = resident.forward(tokens, new Map());
    using found = await forwardHolding(streamed, tokens, new Map());
    assertEquals(await device.download(found), await device.download(expected));
    for (const stage of streamed.stages.slice(0, 4)) {
      using _weights = await streamed.hold(stage);
      for (const { module } of stage.sites) {
        const weights = [streamed, resident].map((model) => device.download(model.weight(module)));
        assertEquals(await weights[0], await weights[1]);
      }
    }
  });
}

Deno.test("a streamed model computes the same to the last bit where its matrices stay in 16 bits, and takes half the memory", async () => {
  await using device = await openSoftwareDevice();
  const deltas = await TINY_LLAMA.adapterDeltas(device, "language");
  const adapters = device.memory.bytes;
  const path = join(TINY_LLAMA.base, "config.json");
  const config = llama.parseConfig(await readJsonFile(path), path);
  const outputs = [];
  for (const asStored of [false, true]) {
    const stored = await openModelWeights(TINY_LLAMA.base);
    const weights = await streamWeights(device, llama, config, stored, asStored);
    using model = new DecoderModel(new Decoder(device, llama, config, weights), 2 ** 30);
    const [stage] = model.stages;
    const before = device.memory.bytes - adapters;
    {
      using _weights = await model.hold(stage!);
      const { module } = stage!.sites[0]!;
      assertEquals(model.weight(module).dtype, asStored ? "bf16" : "f32");
      // Queries, keys and values.
      assertEquals(device.memory.bytes - adapters - before, (asStored ? 2 : 4) * 256 * (256 + 2 * 128));
    }
    outputs.push(await outputsOf(device, model, deltas));
  }
  assertEquals(outputs[1], outputs[0]);
});

Deno.test("openModel() keeps one stage of a streamed model on the device, where a resident one has all of it", async () => {
  await using device = await openSoftwareDevice();
  const layerBytes = 4 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 688 * 256);
  const embeddingBytes = 4 * 2048 * 256;
  const resident = await openModel(device, TINY_LLAMA.base, { residency: "resident" });
  assertGreaterOrEqual(device.memory.bytes, 4 * layerBytes + embeddingBytes);
  resident.dispose();
  assertEquals(device.memory.bytes, 0);

  const streamed = await openModel(device, TINY_LLAMA.base, { residency: "streamed" });
  // Nine norms of 256, each in a buffer of its own.
  assertLessOrEqual(device.memory.bytes, 9 * 4 * 256);
  let most = 0;
  for (const stage of streamed.stages) {
    using _weights = await streamed.hold(stage);
    most = Math.max(most, device.memory.bytes);
  }
  const widestStage = 4 * 2 * 688 * 256;
  assertGreaterOrEqual(most, widestStage);
  assertLess(most, 1.2 * widestStage);
  streamed.dispose();
  assertEquals(device.memory.bytes, 0);
});

Deno.test("a streamed model decodes prompts in groups where their keys and values have too little room together", async () => {
  const device = new CpuDevice();
  const deltas = await TINY_LLAMA.adapterDeltas(device, "category");
  const completionsWith = async (keyValueBytes: number) => {
    using model = await openModel(device, TINY_LLAMA.base, { residency: "streamed", keyValueBytes });
    return await model.generate(SEQUENCES, deltas, { maxNewTokens: 3, eos: EOS });
  };
  // Eight tokens of 4 layers' keys and values, 2 · 128 numbers of 8 bytes each: room for one prompt.
  assertEquals(await completionsWith(8 * 4 * 2 * 128 * 8), await completionsWith(2 ** 30));
});

Deno.test("a streamed model reads every matrix once a token, however many prompts there are", async () => {
  const prompts = Array.from({ length: 12 }, (_, index) => Uint32Array.of(1, 5 + index, 900));
  const one = await readsOf((model) => model.generate(prompts.slice(0, 1), new Map(), UNENDING));
  const twelve = await readsOf((model) => model.generate(prompts, new Map(), UNENDING));
  // Three tokens, each from seven matrices of four layers and the head.
  assertEquals([one, twelve], [3 * (4 * 7 + 1), 3 * (4 * 7 + 1)]);
});

/** How many matrices are read. */
async function readsOf(work: (model: BaseModel) => Promise<unknown>): Promise<number> {
  using model = await openModel(new CpuDevice(), TINY_LLAMA.base, { residency: "streamed" });
  const { read } = WeightReader.prototype;
  let reads = 0;
  WeightReader.prototype.read = function (...args) {
    reads++;
    return read.apply(this, args);
  };
  try {
    await work(model);
  } finally {
    WeightReader.prototype.read = read;
  }
  return reads;
}

Deno.test("BaseModel.hold() keeps weights until the last holder lets go", async () => {
  await using device = await openSoftwareDevice();
  using model = await openModel(device, TINY_LLAMA.base, { residency: "streamed" });
  const [stage] = model.stages;
  const { module } = stage!.sites[0]!;
  const before = device.memory.bytes;
  assertEquals(codeOf(() => model.weight(module)), "weights_not_held");
  const [first, second] = await Promise.all([model.hold(stage!), model.hold(stage!)]);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assertEquals(model.weight(module).shape, [256, 256]);
  second[Symbol.dispose]();
  assertEquals(codeOf(() => model.weight(module)), "weights_not_held");
  assertEquals(device.memory.bytes, before);
});

Deno.test("a streamed model refuses what it does not hold, by name", async () => {
  const device = new CpuDevice();
  using model = await openModel(device, TINY_LLAMA.base, { residency: "streamed" });
  assertEquals(codeOf(() => model.begin(SEQUENCES)), "weights_not_held");
  assertEquals(codeOf(() => model.forward(SEQUENCES, new Map())), "weights_not_held");
  using _embeddings = await model.hold(SEQUENCES);
  using state = model.begin(SEQUENCES);
  const error = assertThrows(() => model.advance(model.stages[0]!, state, new Map()), ModelError);
  assertEquals([error.code, error.where], ["weights_not_held", "model.layers.0.self_attn.q_proj.weight"]);
  const noGradients = assertThrows(() => differentiable(model, "refine", "leave refine out"), ModelError);
  assertEquals([noGradients.code, noGradients.fix], ["weights_streamed", "leave refine out"]);
});

Deno.test("openModel() names a shard that is missing or cut short before it streams anything", async () => {
  await withShards(async (folder, [first, second]) => {
    const open = () => openModel(new CpuDevice(), folder, { residency: "streamed" });
    await truncate(join(folder, second!), 100_000);
    const cut = await assertRejects(open, FormatError);
    assertStringIncludes(cut.where, second!);
    await rm(join(folder, first!));
    const missing = await assertRejects(open, FormatError);
    assertEquals(missing.code, "shard_missing");
    assertStringIncludes(missing.message, first!);
  });
});

Deno.test("BaseModel.hold() names a weight that is not finite, and a file that was cut short meanwhile", async () => {
  await inTemporaryFolder(async (folder) => {
    const random = randomModel(SMALL_CONFIG, 17);
    const name = "model.layers.1.mlp.up_proj.weight";
    const { shape, values } = random.weights.get(name)!;
    const damaged = values.slice();
    damaged[5] = NaN;
    await writeModel(folder, {
      ...random,
      weights: new Map([...random.weights, [name, { shape, values: damaged }]]),
    });
    const device = new CpuDevice();
    using model = await openModel(device, folder, { residency: "streamed" });
    const nan = await assertRejects(
      () => forwardHolding(model, [Uint32Array.of(1, 2)], new Map()),
      ModelError,
    );
    assertEquals([nan.code, nan.where], ["non_finite", name]);
    await truncate(join(folder, "model.safetensors"), 4000);
    const cut = await assertRejects(() => model.hold(model.stages[0]!), FormatError);
    assertEquals(cut.code, "file_changed");
  });
});

function codeOf(work: () => unknown): string {
  return assertThrows(work, ModelError).code;
}
