/** The way back through a whole model against finite differences of a float64 oracle that shares no code with it. */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians, inTemporaryFolder } from "@lora-loom/testing";
import { CpuDevice, type CpuTensor, type Device } from "@lora-loom/tensor";
import type { BaseModel } from "../base_model.ts";
import { ModelError } from "../errors.ts";
import { openModel } from "../open_model.ts";
import { oracleForward } from "../test_support/oracle.ts";
import {
  randomModel,
  SMALL_CONFIG,
  type TestConfig,
  type TestModel,
  writeModel,
} from "../test_support/random_model.ts";
import {
  difference,
  type Factors,
  forEachDirection,
  gradientsOf,
  inner,
  randomFactors,
  RANK,
} from "../test_support/gradients.ts";
import { openSoftwareDevice } from "../test_support/software_device.ts";
import { differentiable, type DifferentiableModel, type LossGradients } from "./differentiable.ts";

const SEQUENCES = [[3, 1, 4, 1, 5], [36], [5, 35, 8]].map((tokens) => Uint32Array.from(tokens));
const TOKENS = 9;

async function withModel<T>(
  device: Device,
  model: TestModel,
  body: (opened: DifferentiableModel) => Promise<T>,
): Promise<T> {
  return await inTemporaryFolder(async (directory) => {
    await writeModel(directory, model);
    using opened = await openModel(device, directory);
    return await body(differentiable(opened, "the test", ""));
  });
}

function dense({ a, b }: { a: Float64Array; b: Float64Array }): number[][] {
  const inner = a.length / RANK;
  return Array.from({ length: b.length / RANK }, (_, o) =>
    Array.from({ length: inner }, (_, i) => {
      let sum = 0;
      for (let r = 0; r < RANK; r++) sum += b[o * RANK + r]! * a[r * inner + i]!;
      return sum;
    }));
}

/** A loss that looks at every stream and at the output: Σ_l ⟨R_l, stream_l⟩ + ⟨R, output⟩ with random R. */
const width = SMALL_CONFIG.hidden_size;
const STREAM_GRADIENTS = [11, 12].map((seed) => gaussians(TOKENS * width, seed).map(Math.fround));
const OUTPUT_GRADIENT = gaussians(TOKENS * width, 13).map(Math.fround);

function oracleLoss(
  model: TestModel,
  factors: Factors,
  offsets?: { readonly module: string; readonly rows: readonly (readonly number[])[] },
): number {
  const deltas = new Map([...factors].map(([module, factor]) => [module, dense(factor)]));
  let first = 0;
  let loss = 0;
  for (const sequence of SEQUENCES) {
    const own = offsets && new Map([[offsets.module, offsets.rows.slice(first, first + sequence.length)]]);
    const { streams, outputs } = oracleForward(model, sequence, deltas, undefined, own);
    const add = (values: readonly (readonly number[])[], weights: Float64Array) =>
      values.flat().forEach((value, i) => loss += value * weights[first * width + i]!);
    streams.forEach((stream, layer) => add(stream, STREAM_GRADIENTS[layer]!));
    add(outputs, OUTPUT_GRADIENT);
    first += sequence.length;
  }
  return loss;
}

const tracedGradients = (
  opened: DifferentiableModel,
  device: Device,
  factors: Factors,
  keepBytes: number,
) => gradientsOf(opened, device, factors, SEQUENCES, lossGradients, { keepBytes });

function lossGradients(device: Device): LossGradients {
  const shape = [TOKENS, width];
  return {
    streams: STREAM_GRADIENTS.map((values) => device.upload(values, shape)),
    output: device.upload(OUTPUT_GRADIENT, shape),
  };
}

const FAMILIES: Record<string, Partial<TestConfig>> = {
  "a Llama with grouped-query attention": {},
  "a Llama with biases everywhere": { attention_bias: true, mlp_bias: true, num_key_value_heads: 6 },
  "a Mistral": { architectures: ["MistralForCausalLM"], sliding_window: null, num_key_value_heads: 1 },
  "a Qwen2": { architectures: ["Qwen2ForCausalLM"] },
  "a Qwen3": { architectures: ["Qwen3ForCausalLM"] },
};

for (const [name, changes] of Object.entries(FAMILIES)) {
  Deno.test(`DecoderModel.trace() gives gradients that agree with finite differences given ${name}`, async () => {
    const model = randomModel({ ...SMALL_CONFIG, ...changes }, 31);
    const device = new CpuDevice();
    await withModel(device, model, async (opened) => {
      const factors = randomFactors(opened);
      const { factors: found, rows } = await tracedGradients(opened, device, factors, Infinity);
      assertEquals(found.size, 14);
      const close = (actual: number, expected: number, what: string) =>
        assertAlmostEquals(actual, expected, 1e-6 * (1 + Math.abs(expected)), what);
      forEachDirection(
        factors,
        (changed) => oracleLoss(model, changed),
        (module, side, direction, expected) =>
          close(inner(found.get(module)![side], direction), expected, `${module} ${side}`),
      );
      let seed = 400;
      for (const [module, factor] of factors) {
        const outputs = factor.b.length / RANK;
        const direction = gaussians(TOKENS * outputs, seed++);
        const expected = difference((step) => {
          const offset = Array.from(direction, (value) => step * value);
          const perToken = Array.from(
            { length: TOKENS },
            (_, t) => offset.slice(t * outputs, (t + 1) * outputs),
          );
          return oracleLoss(model, factors, { module, rows: perToken });
        });
        close(inner(rows.get(module)!, direction), expected, `${module} rows`);
      }
    });
  });
}

Deno.test("DecoderModel.trace() gives the same gradients when it computes layers again instead of keeping them", async () => {
  const device = new CpuDevice();
  await withModel(device, randomModel(SMALL_CONFIG, 32), async (opened) => {
    const factors = randomFactors(opened);
    const kept = await tracedGradients(opened, device, factors, Infinity);
    for (const keepBytes of [0, 20_000]) {
      assertEquals(await tracedGradients(opened, device, factors, keepBytes), kept);
    }
  });
});

Deno.test("DecoderModel.trace() needs the memory of one layer, not of all, when nothing is kept", async () => {
  const layers = 12;
  const peak = async (keepBytes: number) => {
    const device = new CpuDevice();
    return await withModel(
      device,
      randomModel({ ...SMALL_CONFIG, num_hidden_layers: layers }, 33),
      async (opened) => {
        const before = device.memory.bytes;
        using trace = opened.trace([new Uint32Array(60)], new Map(), { keepBytes });
        using output = device.zeros(trace.output.shape);
        trace.backward({ output }, () => {});
        return await Promise.resolve(device.memory.peakBytes - before);
      },
    );
  };
  const [little, much] = [await peak(0), await peak(Infinity)];
  assert(little < much / 3, `${little} bytes against ${much}`);
});

Deno.test("DecoderModel.trace() gives the same gradients on a GPU as on the CPU", async () => {
  for (const architectures of [["LlamaForCausalLM"], ["Qwen3ForCausalLM"]]) {
    const model = randomModel({ ...SMALL_CONFIG, architectures }, 34);
    const cpu = new CpuDevice();
    await using gpu = await openSoftwareDevice();
    const [expected, actual] = [
      await withModel(cpu, model, (opened) => tracedGradients(opened, cpu, randomFactors(opened), Infinity)),
      await withModel(gpu, model, (opened) => tracedGradients(opened, gpu, randomFactors(opened), 20_000)),
    ];
    for (const [module, { a, b }] of expected.factors) {
      assertRelativelyClose(actual.factors.get(module)!.a, a, 2e-5, `${module} A`);
      assertRelativelyClose(actual.factors.get(module)!.b, b, 2e-5, `${module} B`);
      assertRelativelyClose(actual.rows.get(module)!, expected.rows.get(module)!, 2e-5, `${module} rows`);
    }
  }
});

Deno.test("DecoderModel.trace() can be gone back through after a later pass has moved the angles of long sequences", async () => {
  const rope_scaling = {
    rope_type: "longrope",
    short_factor: new Array(6).fill(1),
    long_factor: [1, 2, 3, 4, 5, 6],
  };
  const sizes = { max_position_embeddings: 600, original_max_position_embeddings: 4, rope_scaling };
  const model = randomModel({ ...SMALL_CONFIG, ...sizes }, 36);
  const gradients = async (meanwhile: (opened: DifferentiableModel) => void) => {
    const device = new CpuDevice();
    return await withModel(device, model, (opened) => {
      using trace = opened.trace([Uint32Array.of(3, 1, 4, 1, 5, 9)], new Map(), { keepBytes: 0 });
      meanwhile(opened);
      using output = device.upload(gaussians(6 * width, 5), [6, width]);
      const found: Float64Array[] = [];
      trace.backward({ output }, (_site, _input, at) => found.push((at as CpuTensor).floats.slice()));
      return Promise.resolve(found);
    });
  };
  const expected = await gradients(() => {});
  assertEquals(expected.length, 14);
  const longer = (opened: DifferentiableModel) =>
    opened.trace([new Uint32Array(300)], new Map())[Symbol.dispose]();
  assertEquals(await gradients(longer), expected);
});

Deno.test("differentiable() refuses a model without a backward pass by name, with the way out", () => {
  class OtherModel {}
  const model = new OtherModel() as unknown as BaseModel;
  const error = assertThrows(() => differentiable(model, "refine", "leave refine out"), ModelError);
  assertEquals([error.code, error.fix, error.where], ["no_backward_pass", "leave refine out", "refine"]);
  assert(error.message.includes("refine needs gradients, and Other has no backward pass"), error.message);
});
