import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { openAdapter } from "@lora-loom/formats";
import {
  differentiable,
  type DifferentiableModel,
  disposeDeltas,
  loadDeltas,
  openModel,
} from "@lora-loom/model";
import { type Device, openDevice, type Tensor } from "@lora-loom/tensor";
import { fileURLToPath } from "node:url";
import { blockSize, HostMetrics, measureOutputMetrics } from "./output_metrics.ts";

const EXAMPLES = fileURLToPath(new URL("../../../../examples/", import.meta.url));
/** How many modules each example has, and one of them with its outputs; the T5's is read in the encoder, and weighed by the decoder. */
const MODELS = {
  "tiny-llama": { modules: 28, module: "model.layers.2.self_attn.k_proj", out: 128 },
  "tiny-t5": { modules: 54, module: "decoder.block.1.layer.1.EncDecAttention.k", out: 192 },
};
const OPTIONS = { draws: 2, temperature: 3, seed: 42, signal: undefined, progress: () => {} };
const SEQUENCES = [[5, 70, 800, 9, 2], [1500, 33, 44, 2]].map((tokens) => ({
  tokens: Uint32Array.from(tokens),
  answerStart: tokens.length - 2,
}));

async function withModel(
  example: string,
  body: (device: Device, model: DifferentiableModel) => Promise<void>,
): Promise<void> {
  await using device = await openDevice({ device: "software" });
  using model = await openModel(device, `${EXAMPLES}${example}/base`);
  await body(device, differentiable(model, "the test", ""));
}

async function read(metrics: HostMetrics, module: string): Promise<number[]> {
  using blocks = await metrics.blocks(0, module);
  return [...await blocks.device.download(blocks)];
}

for (const [example, { modules, module, out }] of Object.entries(MODELS)) {
  Deno.test(`measureOutputMetrics() gives Σ g gᵀ of drawn answers of ${example} at unit trace, the same for the same seed`, async () => {
    await withModel(example, async (device, model) => {
      using adapter = await openAdapter(`${EXAMPLES}${example}/adapters/language`);
      const deltas = await loadDeltas(device, adapter);
      const seen = new Map<string, Promise<ArrayLike<number>>[]>();
      // Watches the gradients that the measurement leads back.
      const watched = {
        layerReads: model.layerReads,
        readOut: (output: Tensor) => model.readOut(output),
        readOutBackward: (...args: [Tensor, Tensor]) => model.readOutBackward(...args),
        trace(...args: Parameters<DifferentiableModel["trace"]>) {
          const trace = model.trace(...args);
          return {
            output: trace.output,
            backward: (...[loss, observe]: Parameters<typeof trace.backward>) =>
              trace.backward(loss, (site, input, gradient) => {
                seen.set(site.module, [...seen.get(site.module) ?? [], device.download(gradient)]);
                observe(site, input, gradient);
              }),
            [Symbol.dispose]: () => trace[Symbol.dispose](),
          };
        },
      } as unknown as DifferentiableModel;
      const tasks = [{ sequences: SEQUENCES, deltas }];
      const metrics = await measureOutputMetrics(device, watched, tasks, OPTIONS);
      assertEquals(seen.size, modules);
      const expected = new Float64Array(out * out);
      assertEquals(seen.get(module)!.length, 2, "one way back for every draw");
      for (const gradient of seen.get(module)!) {
        const rows = await gradient;
        for (let t = 0; t < rows.length; t += out) {
          for (let i = 0; i < out; i++) {
            for (let j = 0; j < out; j++) expected[i * out + j]! += rows[t + i]! * rows[t + j]!;
          }
        }
      }
      const trace = expected.reduce((sum, value, at) => at % (out + 1) === 0 ? sum + value : sum, 0);
      assert(trace > 0);
      assertRelativelyClose(await read(metrics, module), expected.map((value) => value / trace), 1e-5);
      const again = await measureOutputMetrics(device, model, tasks, OPTIONS);
      assertEquals(await read(again, module), await read(metrics, module));
      const other = await measureOutputMetrics(device, model, tasks, { ...OPTIONS, seed: 43 });
      assert((await read(other, module)).join() !== (await read(metrics, module)).join());
      disposeDeltas(deltas);
    });
  });
}

Deno.test("measureOutputMetrics() gives nothing to weigh by where no sequence has an answer", async () => {
  await withModel("tiny-llama", async (device, model) => {
    const sequences = SEQUENCES.map(({ tokens }) => ({ tokens, answerStart: tokens.length }));
    const metrics = await measureOutputMetrics(device, model, [{ sequences, deltas: new Map() }], OPTIONS);
    assertEquals(metrics.tasks[0]!.size, 0);
    using blocks = await metrics.blocks(0, "model.layers.0.self_attn.k_proj", 128);
    const values = await device.download(blocks);
    assertEquals([blocks.shape, values.every((value) => value === 0)], [[128, 128], true]);
  });
});

Deno.test("HostMetrics.averagedWith() takes the mean, entry by entry", async () => {
  await using device = await openDevice({ device: "cpu" });
  const metrics = (values: number[]) =>
    new HostMetrics(device, [new Map([["m", { size: 2, values: Float64Array.from(values) }]])]);
  const mean = await read(metrics([1, 2, 2, 5]).averagedWith(metrics([3, 0, 0, 1])), "m");
  [2, 1, 1, 3].forEach((value, i) => assertAlmostEquals(mean[i]!, value, 1e-15));
});

Deno.test("blockSize() keeps up to 1024 outputs whole and cuts more into blocks of 256", () => {
  assertEquals([192, 1024, 1025, 11008].map(blockSize), [192, 1024, 256, 256]);
});
