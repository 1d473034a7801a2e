import { assertEquals } from "@std/assert";
import { openSafetensors } from "@lora-loom/formats";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import { assertRelativelyClose } from "@lora-loom/testing";
import { disposeDeltas } from "../deltas.ts";
import { openModel } from "../open_model.ts";
import { exampleModel } from "../test_support/example_model.ts";
import { openSoftwareDevice } from "../test_support/software_device.ts";
import { differentiable } from "./differentiable.ts";
import { FactorGradients } from "./factor_gradients.ts";

const FIXTURES = new URL("../../../../tests/fixtures/", import.meta.url).pathname;
/** lora_alpha / r of the examples' adapters. */
const ADAPTER_SCALE = 2;

/** What PyTorch computed for the language adapter, by `tests/conformance/write_gradients.py`. */
interface PyTorchGradients {
  /** The prompt, and in an encoder-decoder the answer. */
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly answerStart: number;
  readonly factors: ReadonlyMap<string, Float32Array>;
}

async function openGradients(example: string): Promise<PyTorchGradients> {
  using file = await openSafetensors(`${FIXTURES}${example}/gradients.safetensors`);
  const factors = new Map<string, Float32Array>();
  for (const [name, tensor] of file.tensors) factors.set(name, await tensor.readFloat32());
  const prompt = factors.get("input_ids")!, answer = factors.get("answer_ids") ?? [];
  return { tokens: Uint32Array.of(...prompt, ...answer), answerStart: prompt.length, factors };
}

/** Relative distances allowed, of all gradients together and of each module's. */
type Tolerance = readonly [all: number, module: number];

/**
 * Transformers computes a Llama's norms and softmax in float32, which the reference of the T5 does not. Where all values of an attention
 * pull nearly alike, what is left for its queries and keys is roundoff of float32: the T5's last cross-attention is such a one.
 */
const EXAMPLES: readonly {
  readonly example: string;
  readonly modules: number;
  readonly cpu: Tolerance;
  readonly gpu: Tolerance;
}[] = [
  { example: "tiny-llama", modules: 28, cpu: [1e-4, 1e-4], gpu: [1e-4, 1e-4] },
  { example: "tiny-t5", modules: 54, cpu: [1e-7, 1e-7], gpu: [3e-5, 5e-3] },
];
const DEVICES: readonly (readonly [name: string, key: "cpu" | "gpu", open: () => Promise<Device>])[] = [
  ["cpu", "cpu", () => Promise.resolve(new CpuDevice())],
  ["the software driver", "gpu", openSoftwareDevice],
];

for (const [deviceName, key, open] of DEVICES) {
  for (const { example, modules, [key]: [ofAll, ofModule] } of EXAMPLES) {
    Deno.test(`trace() gives PyTorch's gradients at the factors of an adapter of ${example} on ${deviceName}`, async () => {
      await using device = await open();
      const { base, adapterDeltas } = exampleModel(example);
      using opened = await openModel(device, base);
      const model = differentiable(opened, "the test", "");
      const { tokens, answerStart, factors } = await openGradients(example);
      const deltas = await adapterDeltas(device, "language");
      using trace = model.trace([tokens], deltas, { answerStarts: [answerStart] });
      const pattern = ({ shape }: { readonly shape: readonly number[] }, seed: number) =>
        device.upload(
          Float64Array.from({ length: shape[0]! * shape[1]! }, (_, i) => Math.sin(0.7 * i + seed)),
          shape,
        );
      using sums = new FactorGradients(deltas);
      const streams = trace.streams.map(pattern);
      using output = pattern(trace.output, streams.length);
      trace.backward({ streams, output }, sums.observe);
      assertEquals(sums.sums.size, modules);
      const found: number[] = [], wanted: number[] = [];
      for (const [module, { a, b }] of sums.sums) {
        // PEFT's B does not hold the scale, ours does.
        const scaled = (await device.download(b)).map((value) => value * ADAPTER_SCALE);
        const pairs = { A: await device.download(a), B: scaled };
        for (const [factor, actual] of Object.entries(pairs)) {
          const expected = factors.get(`${module}.lora_${factor}`)!;
          assertRelativelyClose(actual, expected, ofModule, `${module} ${factor}`);
          found.push(...actual);
          wanted.push(...expected);
        }
      }
      assertRelativelyClose(found, wanted, ofAll);
      streams.forEach((tensor) => tensor.dispose());
      disposeDeltas(deltas);
    });
  }
}
