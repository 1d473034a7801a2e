/** Every family against what Transformers and PEFT compute with a small model of random weights. */
import { assertEquals, assertRejects } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import { openSafetensors } from "@lora-loom/formats";
import type { Deltas } from "./base_model.ts";
import { disposeDeltas } from "./deltas.ts";
import { ModelError } from "./errors.ts";
import { openModel } from "./open_model.ts";
import { openFamily } from "./test_support/family_fixture.ts";
import { openSoftwareDevice } from "./test_support/software_device.ts";

const NO_DELTAS: Deltas = new Map();
const FAMILIES = ["llama3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "t5", "t5_v1_1"];

const DEVICES: Readonly<Record<string, () => Promise<Device>>> = {
  cpu: () => Promise.resolve(new CpuDevice()),
  "the software driver": openSoftwareDevice,
};

// The references are float32: they stray from the exact result by some 1e-6, as the GPU does.
const TOLERANCE = 1e-5;

for (const [deviceName, open] of Object.entries(DEVICES)) {
  for (const family of FAMILIES) {
    Deno.test(`openModel() runs ${family} as Transformers and PEFT do, on ${deviceName}`, async () => {
      const { folder, runs, inputs, deltas: loadDeltas } = await openFamily(family);
      await using device = await open();
      using model = await openModel(device, folder);
      const deltas = await loadDeltas(device);
      const sequences = runs.map(({ tokens }) => tokens);
      const answerStarts = runs.map(({ answerStart }) => answerStart);

      using plain = model.forward(sequences, NO_DELTAS, { answerStarts });
      const expected = runs.flatMap(({ logits }) => [...logits]);
      assertRelativelyClose(await device.download(plain), expected, TOLERANCE, "base");
      using adapted = model.forward(sequences, deltas, { answerStarts });
      const adaptedExpected = runs.flatMap(({ adaptedLogits }) => [...adaptedLogits]);
      assertRelativelyClose(await device.download(adapted), adaptedExpected, TOLERANCE, "adapted");

      const seen = new Map<string, Promise<ArrayLike<number>>>();
      const [, long] = runs;
      model.forward([long!.tokens], NO_DELTAS, {
        answerStarts: [long!.answerStart],
        observe: (stage, input) => {
          for (const { module } of stage.sites) seen.set(module, device.download(input));
        },
      }).dispose();
      assertEquals([...seen.keys()].sort(), [...inputs.keys()].sort());
      for (const [module, input] of seen) {
        assertRelativelyClose(await input, inputs.get(module)!, TOLERANCE, module);
      }
      disposeDeltas(deltas);
    });
  }
}

for (const family of FAMILIES) {
  Deno.test(`generate() picks for ${family} what full recomputation picks`, async () => {
    const { folder, runs, deltas: loadDeltas } = await openFamily(family);
    await using device = new CpuDevice();
    using model = await openModel(device, folder);
    const deltas = await loadDeltas(device);
    // Long enough to leave every window behind, and to have a shorter sequence beside it.
    const prompts = runs.map(({ tokens, answerStart }) => tokens.subarray(0, answerStart));
    const generated = await model.generate(prompts, deltas, { maxNewTokens: 5, eos: [] });
    for (const [index, prompt] of prompts.entries()) {
      const tokens = [...prompt];
      for (let step = 0; step < 5; step++) {
        const options = { rows: "last", answerStarts: [prompt.length] } as const;
        using logits = model.forward([Uint32Array.from(tokens)], deltas, options);
        const values = [...await device.download(logits)];
        tokens.push(values.indexOf(Math.max(...values)));
      }
      assertEquals([...generated[index]!], tokens.slice(prompt.length));
    }
    disposeDeltas(deltas);
    model.dispose();
    assertEquals(device.memory.bytes, 0, "every tensor was given back");
  });

  Deno.test(`weight() gives every module of ${family} as it is stored, [out, in]`, async () => {
    const { folder } = await openFamily(family);
    await using device = new CpuDevice();
    using model = await openModel(device, folder);
    using file = await openSafetensors(`${folder}/model.safetensors`);
    for (const { module, inFeatures, outFeatures } of model.stages.flatMap(({ sites }) => sites)) {
      const weight = model.weight(module);
      assertEquals(weight.shape, [outFeatures, inFeatures]);
      const stored = file.tensors.get(`${module}.weight`)!;
      const values = [...await stored.readFloat32()];
      // Conv1D keeps its weights the other way round.
      const expected = family === "gpt2"
        ? Array.from(values, (_, i) => values[i % inFeatures * outFeatures + Math.floor(i / inFeatures)])
        : values;
      assertEquals([...await device.download(weight)], expected, module);
    }
  });
}

Deno.test("generate() refuses a Phi-3 sequence that would outgrow its short factors on the way", async () => {
  const { folder } = await openFamily("phi3");
  await using device = new CpuDevice();
  using model = await openModel(device, folder);
  const generate = (length: number, maxNewTokens: number) =>
    model.generate([new Uint32Array(length).fill(5)], NO_DELTAS, { maxNewTokens, eos: [] });
  assertEquals((await generate(20, 4))[0]!.length, 4);
  assertEquals((await generate(25, 4))[0]!.length, 4);
  assertEquals((await assertRejects(() => generate(20, 5), ModelError)).code, "sequence_too_long");
});
