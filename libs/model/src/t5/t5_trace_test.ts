/** The way back through both stacks against finite differences in float64, and its way forth against the stages. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { CpuDevice, type CpuTensor, type Device, type Tensor } from "@lora-loom/tensor";
import { differentiable, type DifferentiableModel, type LossGradients } from "../backward/differentiable.ts";
import { disposeDeltas } from "../deltas.ts";
import { openModel } from "../open_model.ts";
import { openFamily } from "../test_support/family_fixture.ts";
import {
  type Factors,
  forEachDirection,
  gradientsOf,
  inner,
  randomFactors,
  uploadFactors,
} from "../test_support/gradients.ts";
import { openSoftwareDevice } from "../test_support/software_device.ts";

/** ReLU and a tied, scaled head; gated GELU and a head of its own. */
const FAMILIES = ["t5", "t5_v1_1"] as const;
const HIDDEN = 32;
const BLOCKS = 4;

/** A prompt longer than the nearest buckets of distances, one of a single token without an answer, and one between. */
const SEQUENCES = [
  Uint32Array.from({ length: 26 }, (_, i) => (7 * i) % 64),
  Uint32Array.of(36),
  Uint32Array.of(5, 35, 8, 11, 12),
];
const ANSWER_STARTS = [20, 1, 2];
const PROMPT_TOKENS = 23;
const ANSWER_TOKENS = 12;

/** Random weights of every stream and of the output: the loss is Σ_l ⟨R_l, stream_l⟩ + ⟨R, output⟩. */
const WEIGHTS = Array.from({ length: BLOCKS + 1 }, (_, place) => {
  const rows = place < BLOCKS / 2 ? PROMPT_TOKENS : ANSWER_TOKENS;
  return gaussians(rows * HIDDEN, 11 + place).map(Math.fround);
});

function lossGradients(device: Device): LossGradients {
  const tensors = WEIGHTS.map((values) => device.upload(values, [values.length / HIDDEN, HIDDEN]));
  return { streams: tensors.slice(0, BLOCKS), output: tensors[BLOCKS]! };
}

async function withT5<T>(
  family: string,
  device: Device,
  body: (opened: DifferentiableModel) => Promise<T>,
): Promise<T> {
  const { folder } = await openFamily(family);
  using opened = await openModel(device, folder);
  return await body(differentiable(opened, "the test", ""));
}

const tracedGradients = (opened: DifferentiableModel, device: Device, factors: Factors, keepBytes: number) =>
  gradientsOf(opened, device, factors, SEQUENCES, lossGradients, { keepBytes, answerStarts: ANSWER_STARTS });

function floats(tensor: Tensor): Float64Array {
  return (tensor as CpuTensor).floats;
}

function tracedLoss(opened: DifferentiableModel, device: Device, factors: Factors): number {
  const deltas = uploadFactors(device, factors);
  using trace = opened.trace(SEQUENCES, deltas, { keepBytes: 0, answerStarts: ANSWER_STARTS });
  const loss = [...trace.streams, trace.output].reduce(
    (sum, tensor, place) => sum + inner(floats(tensor), WEIGHTS[place]!),
    0,
  );
  disposeDeltas(deltas);
  return loss;
}

for (const family of FAMILIES) {
  Deno.test(`T5Model.trace() gives the streams, the output and the logits of ${family} that the stages give`, async () => {
    const device = new CpuDevice();
    await withT5(family, device, async (opened) => {
      const deltas = uploadFactors(device, randomFactors(opened));
      using trace = opened.trace(SEQUENCES, deltas, { answerStarts: ANSWER_STARTS });
      assertEquals(opened.layerReads, ["prompt", "prompt", "answer", "answer"]);
      assertEquals(trace.streams.length, BLOCKS);
      let state = opened.begin(SEQUENCES, ANSWER_STARTS);
      const seen: number[] = [];
      for (const stage of opened.stages) {
        const next = opened.advance(stage, state, deltas);
        state[Symbol.dispose]();
        state = next;
        const block = /^(encoder|decoder)\.block\.(\d)\..*wo$/.exec(stage.name);
        // With the encoder's last block its stream has ended: the state shows the decoder's.
        if (!block || stage.name.startsWith("encoder.block.1")) continue;
        const place = Number(block[2]) + (block[1] === "decoder" ? BLOCKS / 2 : 0);
        seen.push(place);
        assertRelativelyClose(floats(trace.streams[place]!), floats(state.stream), 1e-13, stage.name);
      }
      assertEquals(seen, [0, 2, 3]);
      assertRelativelyClose(floats(trace.output), floats(state.input), 1e-13);
      using normalised = opened.normalise(trace.streams.at(-1)!);
      assertEquals(floats(normalised), floats(trace.output));
      using logits = opened.logits(state);
      using read = opened.readOut(trace.output);
      assertRelativelyClose(floats(read), floats(logits), 1e-13);
      state[Symbol.dispose]();
      return await Promise.resolve();
    });
  });

  Deno.test(`T5Model.trace() gives gradients of ${family} that agree with finite differences`, async () => {
    const device = new CpuDevice();
    await withT5(family, device, async (opened) => {
      const factors = randomFactors(opened);
      const { factors: found } = await tracedGradients(opened, device, factors, Infinity);
      assertEquals([...found.keys()].sort(), [...factors.keys()].sort());
      forEachDirection(
        factors,
        (changed) => tracedLoss(opened, device, changed),
        (module, side, direction, expected) => {
          const actual = inner(found.get(module)![side], direction);
          assertAlmostEquals(actual, expected, 1e-6 * (1 + Math.abs(expected)), `${module} ${side}`);
        },
        // Short, because a difference across the bend of a ReLU is not its slope.
        1e-7,
      );
    });
  });

  Deno.test(`T5Model.trace() gives the same gradients of ${family} on a GPU as on the CPU`, async () => {
    const cpu = new CpuDevice();
    await using gpu = await openSoftwareDevice();
    const [expected, actual] = [
      await withT5(family, cpu, (opened) => tracedGradients(opened, cpu, randomFactors(opened), Infinity)),
      await withT5(family, gpu, (opened) => tracedGradients(opened, gpu, randomFactors(opened), 20_000)),
    ];
    for (const [module, { a, b }] of expected.factors) {
      assertRelativelyClose(actual.factors.get(module)!.a, a, 2e-5, `${module} A`);
      assertRelativelyClose(actual.factors.get(module)!.b, b, 2e-5, `${module} B`);
      assertRelativelyClose(actual.rows.get(module)!, expected.rows.get(module)!, 2e-5, `${module} rows`);
    }
  });

  Deno.test(`T5Model.readOutBackward() is the transpose of readOut() in ${family}`, async () => {
    const device = new CpuDevice();
    await withT5(family, device, async (opened) => {
      const states = gaussians(3 * HIDDEN, 1), gradients = gaussians(3 * 64, 2);
      const logits = floats(opened.readOut(device.upload(states, [3, HIDDEN])));
      const back = floats(opened.readOutBackward(device.upload(gradients, [3, 64])));
      assertAlmostEquals(inner(logits, gradients), inner(states, back), 1e-10);
      return await Promise.resolve();
    });
  });
}

Deno.test("T5Model.trace() gives the same gradients when it computes blocks again instead of keeping them", async () => {
  const device = new CpuDevice();
  await withT5("t5_v1_1", device, async (opened) => {
    const factors = randomFactors(opened);
    const kept = await tracedGradients(opened, device, factors, Infinity);
    // Nothing; the decoder's last block; the decoder and the encoder's last block.
    for (const keepBytes of [0, 120_000, 300_000]) {
      assertEquals(await tracedGradients(opened, device, factors, keepBytes), kept);
    }
  });
});

Deno.test("T5Model.trace() can be gone back through after a later pass with a longer sequence", async () => {
  const device = new CpuDevice();
  const gradients = async (meanwhile: (opened: DifferentiableModel) => void) =>
    await withT5("t5", device, async (opened) => {
      using trace = opened.trace([Uint32Array.of(5, 6, 7, 8)], new Map(), {
        keepBytes: 0,
        answerStarts: [2],
      });
      meanwhile(opened);
      using output = device.upload(gaussians(3 * HIDDEN, 5), [3, HIDDEN]);
      const found: [string, Float64Array][] = [];
      trace.backward({ output }, ({ module }, _input, at) => found.push([module, floats(at).slice()]));
      return await Promise.resolve(found);
    });
  const expected = await gradients(() => {});
  assert(expected.length > 0);
  assertEquals(
    await gradients((opened) => opened.trace([new Uint32Array(200)], new Map())[Symbol.dispose]()),
    expected,
  );
});

Deno.test("T5Model.trace() goes back into the encoder alone when the loss looks at nothing else", async () => {
  const device = new CpuDevice();
  await withT5("t5", device, async (opened) => {
    using trace = opened.trace(SEQUENCES, new Map(), { answerStarts: ANSWER_STARTS });
    using first = device.upload(WEIGHTS[0]!, [PROMPT_TOKENS, HIDDEN]);
    const moved = new Set<string>();
    trace.backward({ streams: [first] }, ({ module }, _input, gradient) => {
      if (floats(gradient).some((value) => value !== 0)) moved.add(module.split(".").slice(0, 3).join("."));
    });
    assertEquals([...moved], ["encoder.block.0"]);
    return await Promise.resolve();
  });
});
