/** Every family against what Transformers and PEFT compute with a small model of random weights. */
import { assertEquals } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import type { Deltas } from "./base_model.ts";
import { disposeDeltas } from "./deltas.ts";
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
