import { assertEquals } from "@std/assert";
import { openSafetensors } from "@lora-loom/formats";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import { assertRelativelyClose } from "@lora-loom/testing";
import { disposeDeltas } from "../deltas.ts";
import { openModel } from "../open_model.ts";
import { openSoftwareDevice } from "../test_support/software_device.ts";
import { adapterDeltas, BASE } from "../test_support/tiny_llama.ts";
import { differentiable } from "./differentiable.ts";
import { FactorGradients } from "./factor_gradients.ts";

const FIXTURE =
  new URL("../../../../tests/fixtures/tiny-llama/gradients.safetensors", import.meta.url).pathname;
/** lora_alpha / r of the example's adapters. */
const ADAPTER_SCALE = 2;

/** What PyTorch computed for the language adapter, by `tests/conformance/write_gradients.py`. */
async function openGradients(): Promise<
  { readonly tokens: Uint32Array; readonly gradients: ReadonlyMap<string, Float32Array> }
> {
  using file = await openSafetensors(FIXTURE);
  const gradients = new Map<string, Float32Array>();
  for (const [name, tensor] of file.tensors) gradients.set(name, await tensor.readFloat32());
  return { tokens: Uint32Array.from(gradients.get("input_ids")!), gradients };
}

const DEVICES: readonly (readonly [name: string, open: () => Promise<Device>, tolerance: number])[] = [
  ["cpu", () => Promise.resolve(new CpuDevice()), 1e-4],
  ["the software driver", openSoftwareDevice, 1e-4],
];

for (const [deviceName, open, tolerance] of DEVICES) {
  Deno.test(`LlamaModel.trace() gives PyTorch's gradients at an adapter's factors on ${deviceName}`, async () => {
    await using device = await open();
    using opened = await openModel(device, BASE);
    const model = differentiable(opened, "the test", "");
    const { tokens, gradients } = await openGradients();
    const deltas = await adapterDeltas(device, "language");
    using trace = model.trace([tokens], deltas);
    const pattern = ({ shape }: { readonly shape: readonly number[] }, seed: number) =>
      device.upload(
        Float64Array.from({ length: shape[0]! * shape[1]! }, (_, i) => Math.sin(0.7 * i + seed)),
        shape,
      );
    using sums = new FactorGradients(deltas);
    const streams = trace.streams.map(pattern);
    using output = pattern(trace.output, streams.length);
    trace.backward({ streams, output }, sums.observe);
    assertEquals(sums.sums.size, 28);
    for (const [module, { a, b }] of sums.sums) {
      // PEFT's B does not hold the scale, ours does.
      const scaled = (await device.download(b)).map((value) => value * ADAPTER_SCALE);
      assertRelativelyClose(
        await device.download(a),
        gradients.get(`${module}.lora_A`)!,
        tolerance,
        module,
      );
      assertRelativelyClose(scaled, gradients.get(`${module}.lora_B`)!, tolerance, module);
    }
    streams.forEach((tensor) => tensor.dispose());
    disposeDeltas(deltas);
  });
}
