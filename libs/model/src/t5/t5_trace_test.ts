/** What is particular about going back through an encoder-decoder; gradients are checked with those of the other families. */
import { assert, assertEquals } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import { CpuDevice, type CpuTensor } from "@lora-loom/tensor";
import { differentiable, type DifferentiableModel } from "../backward/differentiable.ts";
import { openModel } from "../open_model.ts";
import { openFamily } from "../test_support/family_fixture.ts";

const HIDDEN = 32;

async function withT5(body: (opened: DifferentiableModel, device: CpuDevice) => void): Promise<void> {
  const { folder } = await openFamily("t5");
  const device = new CpuDevice();
  using opened = await openModel(device, folder);
  body(differentiable(opened, "the test", ""), device);
}

/** Gradients of every module, in the order in which they are shown. */
function shown(
  opened: DifferentiableModel,
  device: CpuDevice,
  meanwhile: () => void,
): [module: string, gradient: Float64Array][] {
  using trace = opened.trace([Uint32Array.of(5, 6, 7, 8)], new Map(), { keepBytes: 0, answerStarts: [2] });
  meanwhile();
  using output = device.upload(gaussians(3 * HIDDEN, 5), [3, HIDDEN]);
  const found: [string, Float64Array][] = [];
  trace.backward(
    { output },
    ({ module }, _input, at) => found.push([module, (at as CpuTensor).floats.slice()]),
  );
  return found;
}

Deno.test("T5Model.trace() can be gone back through after a later pass with a longer sequence", async () => {
  await withT5((opened, device) => {
    const expected = shown(opened, device, () => {});
    assert(expected.length > 0);
    const longer = () => opened.trace([new Uint32Array(200)], new Map())[Symbol.dispose]();
    assertEquals(shown(opened, device, longer), expected);
  });
});

Deno.test("T5Model.trace() reads what the stages read, and leads gradients of the encoder nowhere else", async () => {
  await withT5((opened, device) => {
    assertEquals(opened.layerReads, ["prompt", "prompt", "answer", "answer"]);
    using trace = opened.trace([Uint32Array.of(5, 6, 7, 8), Uint32Array.of(9)], new Map(), {
      answerStarts: [3, 1],
    });
    assertEquals(trace.streams.map(({ shape }) => shape[0]), [4, 4, 3, 3]);
    using first = device.upload(gaussians(4 * HIDDEN, 6), [4, HIDDEN]);
    const moved = new Set<string>();
    trace.backward({ streams: [first] }, ({ module }, _input, gradient) => {
      const isMoved = (gradient as CpuTensor).floats.some((value) => value !== 0);
      if (isMoved) moved.add(module.split(".").slice(0, 3).join("."));
    });
    assertEquals([...moved], ["encoder.block.0"]);
  });
});

Deno.test("T5Model.trace() needs the memory of one block, not of all, when nothing is kept", async () => {
  const peak = async (keepBytes: number) => {
    let bytes = 0;
    await withT5((opened, device) => {
      const before = device.memory.bytes;
      using trace = opened.trace([new Uint32Array(120)], new Map(), { keepBytes, answerStarts: [60] });
      using output = device.zeros(trace.output.shape);
      trace.backward({ output }, () => {});
      bytes = device.memory.peakBytes - before;
    });
    return bytes;
  };
  const [little, much] = [await peak(0), await peak(Infinity)];
  assert(little < 0.6 * much, `${little} bytes against ${much}, of four blocks`);
});
