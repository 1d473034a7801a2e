/**
 * The way back through small models of the families that no oracle is written for, against finite differences in float64, and its way forth
 * against the stages, which are checked against Transformers.
 */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { CpuDevice, type CpuTensor, type Device, type Tensor } from "@lora-loom/tensor";
import type { Stage } from "../base_model.ts";
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
import { differentiable, type DifferentiableModel, type LossGradients } from "./differentiable.ts";

const FAMILIES = ["gemma2", "gemma3", "phi3", "gpt2", "t5", "t5_v1_1"];
/** Of differences: short where a difference across the bend of a ReLU would not be its slope. */
const STEPS: Readonly<Record<string, number>> = { t5: 1e-7 };
/** Of all of them. */
const HIDDEN = 32, VOCABULARY = 64;

/**
 * A sequence longer than windows, than the lengths at which angles change and, in its prompt, than the nearest buckets of distances; one of a
 * single token, without an answer; and one between.
 */
const SEQUENCES = [
  Uint32Array.from({ length: 26 }, (_, i) => (7 * i) % 64),
  Uint32Array.of(36),
  Uint32Array.of(5, 35, 8, 11, 12),
];
const ANSWER_STARTS = [20, 1, 2];

function rowCount(reads: Stage["reads"]): number {
  return reads === "prompt" ? 23 : reads === "answer" ? 12 : 32;
}

/** Random weights of every stream and of the output: the loss is Σ_l ⟨R_l, stream_l⟩ + ⟨R, output⟩. */
function lossWeights({ layerReads }: DifferentiableModel): Float64Array<ArrayBuffer>[] {
  return [...layerReads, layerReads.at(-1)].map((reads, place) =>
    gaussians(rowCount(reads) * HIDDEN, 11 + place).map(Math.fround)
  );
}

function lossGradients(opened: DifferentiableModel): (device: Device) => LossGradients {
  return (device) => {
    const tensors = lossWeights(opened).map((values) =>
      device.upload(values, [values.length / HIDDEN, HIDDEN])
    );
    return { streams: tensors.slice(0, -1), output: tensors.at(-1)! };
  };
}

async function withFamily<T>(
  family: string,
  device: Device,
  body: (opened: DifferentiableModel) => Promise<T> | T,
): Promise<T> {
  const { folder } = await openFamily(family);
  using opened = await openModel(device, folder);
  return await body(differentiable(opened, "the test", ""));
}

const tracedGradients = (opened: DifferentiableModel, device: Device, factors: Factors, keepBytes: number) =>
  gradientsOf(opened, device, factors, SEQUENCES, lossGradients(opened), {
    keepBytes,
    answerStarts: ANSWER_STARTS,
  });

function floats(tensor: Tensor): Float64Array {
  return (tensor as CpuTensor).floats;
}

function tracedLoss(opened: DifferentiableModel, device: Device, factors: Factors): number {
  const deltas = uploadFactors(device, factors);
  using trace = opened.trace(SEQUENCES, deltas, { keepBytes: 0, answerStarts: ANSWER_STARTS });
  const weights = lossWeights(opened);
  const loss = [...trace.streams, trace.output].reduce(
    (sum, tensor, place) => sum + inner(floats(tensor), weights[place]!),
    0,
  );
  disposeDeltas(deltas);
  return loss;
}

/** The layer that a stage ends, counted through both halves of a model; nothing for other stages. */
function layerEndedBy({ name, reads }: Stage, layerReads: readonly Stage["reads"][]): number | undefined {
  const layer = /\.(\d+)\..*(mlp\.down|DenseReluDense\.wo)$/.exec(name)?.[1];
  return layer === undefined ? undefined : layerReads.indexOf(reads) + Number(layer);
}

for (const family of FAMILIES) {
  Deno.test(`trace() gives the streams, the output and the logits of ${family} that the stages give`, async () => {
    const device = new CpuDevice();
    await withFamily(family, device, (opened) => {
      const deltas = uploadFactors(device, randomFactors(opened));
      using trace = opened.trace(SEQUENCES, deltas, { answerStarts: ANSWER_STARTS });
      const { layerReads } = opened;
      assertEquals(trace.streams.length, layerReads.length);
      let state = opened.begin(SEQUENCES, ANSWER_STARTS);
      const seen: number[] = [];
      for (const stage of opened.stages) {
        const next = opened.advance(stage, state, deltas);
        state[Symbol.dispose]();
        state = next;
        const layer = layerEndedBy(stage, layerReads);
        if (layer === undefined) continue;
        // With the encoder's last block its stream has ended: the state shows the decoder's.
        if (layerReads[layer] !== layerReads[layer + 1] && layer + 1 < layerReads.length) continue;
        seen.push(layer);
        assertRelativelyClose(floats(trace.streams[layer]!), floats(state.stream), 1e-13, stage.name);
      }
      assertEquals(seen.length, family.startsWith("t5") ? layerReads.length - 1 : layerReads.length);
      assertRelativelyClose(floats(trace.output), floats(state.input), 1e-13);
      using normalised = opened.normalise(trace.streams.at(-1)!);
      assertEquals(floats(normalised), floats(trace.output));
      using logits = opened.logits(state);
      using read = opened.readOut(trace.output);
      assertRelativelyClose(floats(read), floats(logits), 1e-13);
      state[Symbol.dispose]();
    });
  });

  Deno.test(`trace() gives gradients of ${family} that agree with finite differences`, async () => {
    const device = new CpuDevice();
    await withFamily(family, device, async (opened) => {
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
        STEPS[family],
      );
    });
  });

  Deno.test(`trace() gives the same gradients of ${family} on a GPU as on the CPU, and when it keeps less`, async () => {
    const cpu = new CpuDevice();
    await using gpu = await openSoftwareDevice();
    const [expected, again, actual] = [
      await withFamily(
        family,
        cpu,
        (opened) => tracedGradients(opened, cpu, randomFactors(opened), Infinity),
      ),
      await withFamily(family, cpu, (opened) => tracedGradients(opened, cpu, randomFactors(opened), 120_000)),
      await withFamily(family, gpu, (opened) => tracedGradients(opened, gpu, randomFactors(opened), 0)),
    ];
    assertEquals(again, expected);
    for (const [module, { a, b }] of expected.factors) {
      assertRelativelyClose(actual.factors.get(module)!.a, a, 3e-5, `${module} A`);
      assertRelativelyClose(actual.factors.get(module)!.b, b, 3e-5, `${module} B`);
      assertRelativelyClose(actual.rows.get(module)!, expected.rows.get(module)!, 3e-5, `${module} rows`);
    }
  });

  Deno.test(`readOutBackward() gives the gradient through readOut() of ${family}`, async () => {
    const device = new CpuDevice();
    await withFamily(family, device, (opened) => {
      const states = gaussians(3 * HIDDEN, 1), direction = gaussians(3 * HIDDEN, 2);
      const gradients = gaussians(3 * VOCABULARY, 3);
      const logitsAt = (step: number) =>
        opened.readOut(
          device.upload(states.map((state, i) => state + step * direction[i]!), [3, HIDDEN]),
        );
      const back = opened.readOutBackward(device.upload(gradients, [3, VOCABULARY]), logitsAt(0));
      const expected =
        (inner(floats(logitsAt(1e-5)), gradients) - inner(floats(logitsAt(-1e-5)), gradients)) /
        2e-5;
      assertAlmostEquals(inner(floats(back), direction), expected, 1e-7 * (1 + Math.abs(expected)));
    });
  });
}
