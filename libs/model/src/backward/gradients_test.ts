/** The way back through a whole model against finite differences of a float64 oracle that shares no code with it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { CpuDevice, type Device, type Tensor } from "@lora-loom/tensor";
import { architectureOf } from "../architectures/registry.ts";
import type { BaseModel, Delta } from "../base_model.ts";
import { disposeDeltas } from "../deltas.ts";
import { ModelError } from "../errors.ts";
import { openModel } from "../open_model.ts";
import { openFamily } from "../test_support/family_fixture.ts";
import { oracleForward } from "../test_support/oracle.ts";
import {
  randomModel,
  SMALL_CONFIG,
  type TestConfig,
  type TestModel,
  writeModel,
} from "../test_support/random_model.ts";
import { openSoftwareDevice } from "../test_support/software_device.ts";
import { missingBackward } from "./missing_backward.ts";
import { differentiable, type DifferentiableModel, type LossGradients } from "./differentiable.ts";
import { FactorGradients } from "./factor_gradients.ts";

const SEQUENCES = [[3, 1, 4, 1, 5], [36], [5, 35, 8]].map((tokens) => Uint32Array.from(tokens));
const TOKENS = 9;
const RANK = 2;
/** Of the central differences: their error is about its square. */
const STEP = 1e-5;

async function withModel<T>(
  device: Device,
  model: TestModel,
  body: (opened: DifferentiableModel) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "loom-model-"));
  try {
    await writeModel(directory, model);
    using opened = await openModel(device, directory);
    return await body(differentiable(opened, "the test", ""));
  } finally {
    await rm(directory, { recursive: true });
  }
}

type Factors = Map<string, { readonly a: Float64Array<ArrayBuffer>; readonly b: Float64Array<ArrayBuffer> }>;

/** Random factors for every module, float32 exactly, so that every device starts from the same numbers. */
function randomFactors(opened: DifferentiableModel): Factors {
  const rounded = (count: number, seed: number, scale: number) =>
    gaussians(count, seed).map((value) => Math.fround(scale * value));
  return new Map(
    opened.stages.flatMap(({ sites }) => sites).map(({ module, inFeatures, outFeatures }, index) => [module, {
      a: rounded(RANK * inFeatures, 100 + index, 0.3),
      b: rounded(outFeatures * RANK, 200 + index, 0.3),
    }]),
  );
}

function upload(device: Device, factors: Factors): Map<string, Delta> {
  return new Map(
    [...factors].map(([module, { a, b }]) => [module, {
      a: device.upload(a, [RANK, a.length / RANK]),
      b: device.upload(b, [b.length / RANK, RANK]),
    }]),
  );
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

interface Gradients {
  readonly factors: Map<string, { readonly a: ArrayLike<number>; readonly b: ArrayLike<number> }>;
  readonly rows: Map<string, ArrayLike<number>>;
}

async function gradientsOf(
  opened: DifferentiableModel,
  device: Device,
  factors: Factors,
  keepBytes: number,
): Promise<Gradients> {
  // The table of angles is the model's; it is made on the first pass.
  opened.forward(SEQUENCES, new Map()).dispose();
  const before = device.memory.bytes;
  const deltas = upload(device, factors);
  const rows = new Map<string, Promise<ArrayLike<number>>>();
  const result = new Map<string, { a: ArrayLike<number>; b: ArrayLike<number> }>();
  {
    using sums = new FactorGradients(deltas);
    using trace = opened.trace(SEQUENCES, deltas, { keepBytes });
    const loss = lossGradients(device);
    trace.backward(loss, (site, input, gradient) => {
      sums.observe(site, input, gradient);
      rows.set(site.module, device.download(gradient));
    });
    loss.output!.dispose();
    loss.streams!.forEach((tensor) => tensor!.dispose());
    for (const [module, { a, b }] of sums.sums) {
      result.set(module, { a: await device.download(a), b: await device.download(b) });
    }
  }
  disposeDeltas(deltas);
  assertEquals(device.memory.bytes, before, "every tensor was given back");
  const settled = new Map<string, ArrayLike<number>>();
  for (const [module, values] of rows) settled.set(module, await values);
  return { factors: result, rows: settled };
}

function lossGradients(device: Device): LossGradients {
  const shape = [TOKENS, width];
  return {
    streams: STREAM_GRADIENTS.map((values) => device.upload(values, shape)),
    output: device.upload(OUTPUT_GRADIENT, shape),
  };
}

function inner(u: ArrayLike<number>, v: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < u.length; i++) sum += u[i]! * v[i]!;
  return sum;
}

/** (f(STEP) − f(−STEP)) / (2 STEP) */
function difference(f: (step: number) => number): number {
  return (f(STEP) - f(-STEP)) / (2 * STEP);
}

function moved(values: Float64Array, direction: Float64Array, step: number): Float64Array<ArrayBuffer> {
  return Float64Array.from(values, (value, i) => value + step * direction[i]!);
}

const FAMILIES: Record<string, Partial<TestConfig>> = {
  "a Llama with grouped-query attention": {},
  "a Llama with biases everywhere": { attention_bias: true, mlp_bias: true, num_key_value_heads: 6 },
  "a Mistral": { architectures: ["MistralForCausalLM"], sliding_window: null, num_key_value_heads: 1 },
  "a Qwen2": { architectures: ["Qwen2ForCausalLM"] },
  "a Qwen3": { architectures: ["Qwen3ForCausalLM"] },
};

for (const [name, changes] of Object.entries(FAMILIES)) {
  Deno.test(`LlamaModel.trace() gives gradients that agree with finite differences given ${name}`, async () => {
    const model = randomModel({ ...SMALL_CONFIG, ...changes }, 31);
    const device = new CpuDevice();
    await withModel(device, model, async (opened) => {
      const factors = randomFactors(opened);
      const { factors: found, rows } = await gradientsOf(opened, device, factors, Infinity);
      assertEquals(found.size, 14);
      let seed = 300;
      for (const [module, factor] of factors) {
        for (const side of ["a", "b"] as const) {
          const direction = gaussians(factor[side].length, seed++);
          const expected = difference((step) =>
            oracleLoss(
              model,
              new Map(factors).set(module, { ...factor, [side]: moved(factor[side], direction, step) }),
            )
          );
          const actual = inner(found.get(module)![side], direction);
          assertAlmostEquals(actual, expected, 1e-6 * (1 + Math.abs(expected)), `${module} ${side}`);
        }
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
        const actual = inner(rows.get(module)!, direction);
        assertAlmostEquals(actual, expected, 1e-6 * (1 + Math.abs(expected)), `${module} rows`);
      }
    });
  });
}

Deno.test("LlamaModel.trace() gives the same gradients when it computes layers again instead of keeping them", async () => {
  const device = new CpuDevice();
  await withModel(device, randomModel(SMALL_CONFIG, 32), async (opened) => {
    const factors = randomFactors(opened);
    const kept = await gradientsOf(opened, device, factors, Infinity);
    for (const keepBytes of [0, 20_000]) {
      assertEquals(await gradientsOf(opened, device, factors, keepBytes), kept);
    }
  });
});

Deno.test("LlamaModel.trace() needs the memory of one layer, not of all, when nothing is kept", async () => {
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

Deno.test("LlamaModel.trace() gives the same gradients on a GPU as on the CPU", async () => {
  for (const architectures of [["LlamaForCausalLM"], ["Qwen3ForCausalLM"]]) {
    const model = randomModel({ ...SMALL_CONFIG, architectures }, 34);
    const cpu = new CpuDevice();
    await using gpu = await openSoftwareDevice();
    const [expected, actual] = [
      await withModel(cpu, model, (opened) => gradientsOf(opened, cpu, randomFactors(opened), Infinity)),
      await withModel(gpu, model, (opened) => gradientsOf(opened, gpu, randomFactors(opened), 20_000)),
    ];
    for (const [module, { a, b }] of expected.factors) {
      assertRelativelyClose(actual.factors.get(module)!.a, a, 2e-5, `${module} A`);
      assertRelativelyClose(actual.factors.get(module)!.b, b, 2e-5, `${module} B`);
      assertRelativelyClose(actual.rows.get(module)!, expected.rows.get(module)!, 2e-5, `${module} rows`);
    }
  }
});

Deno.test("LlamaModel.readOutBackward() is the transpose of readOut()", async () => {
  const device = new CpuDevice();
  await withModel(device, randomModel(SMALL_CONFIG, 35), async (opened) => {
    const states = gaussians(3 * width, 1), gradients = gaussians(3 * SMALL_CONFIG.vocab_size, 2);
    const read = async (tensor: Tensor) => await device.download(tensor);
    const logits = await read(opened.readOut(device.upload(states, [3, width])));
    const back = await read(opened.readOutBackward(device.upload(gradients, [3, SMALL_CONFIG.vocab_size])));
    assertAlmostEquals(inner(logits, gradients), inner(states, back), 1e-10);
  });
});

Deno.test("differentiable() refuses a family without a backward pass by name, with the way out", async () => {
  const device = new CpuDevice();
  const refusal = (model: BaseModel) =>
    assertThrows(() => differentiable(model, "refine", "leave refine out"), ModelError);
  const cases: Record<string, string> = {
    phi3: "Phi3ForCausalLM has no backward pass for modules of several projections",
    gpt2: "GPT2LMHeadModel has no backward pass for an MLP without a gate",
    gemma2: "Gemma2ForCausalLM has no backward pass for the activation",
    t5: "T5 has no backward pass;",
  };
  for (const [family, part] of Object.entries(cases)) {
    const { folder } = await openFamily(family);
    using model = await openModel(device, folder);
    const error = refusal(model);
    assertEquals([error.code, error.fix, error.where], ["no_backward_pass", "leave refine out", "refine"]);
    assert(error.message.includes(part), error.message);
  }
  // A Llama whose angles depend on the length of the sequence.
  const json = {
    ...SMALL_CONFIG,
    rope_scaling: { rope_type: "longrope", short_factor: Array(6).fill(1), long_factor: Array(6).fill(2) },
  };
  const llama = architectureOf(json, "");
  assertEquals(missingBackward(llama, llama.parseConfig(SMALL_CONFIG, "")), undefined);
  assertEquals(
    missingBackward(llama, llama.parseConfig(json, "")),
    "rotary angles that change with the length",
  );
  for (const family of ["llama3", "mistral", "qwen2", "qwen3"]) {
    const { folder } = await openFamily(family);
    using model = await openModel(device, folder);
    assertEquals(differentiable(model, "refine", ""), model as DifferentiableModel);
  }
});
