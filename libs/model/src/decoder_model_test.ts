import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { CpuDevice, type Tensor } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians, inTemporaryFolder } from "@lora-loom/testing";
import type { BaseModel, Delta, Deltas } from "./base_model.ts";
import { disposeDeltas } from "./deltas.ts";
import { ModelError } from "./errors.ts";
import { openModel } from "./open_model.ts";
import { oracleForward } from "./test_support/oracle.ts";
import {
  randomModel,
  SMALL_CONFIG,
  type TestConfig,
  type TestModel,
  writeModel,
} from "./test_support/random_model.ts";

const SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [36], [5, 35, 8, 9, 7]].map((tokens) =>
  Uint32Array.from(tokens)
);
const NO_DELTAS: Deltas = new Map();
const ADAPTED = [
  "model.layers.0.self_attn.q_proj",
  "model.layers.0.mlp.down_proj",
  "model.layers.1.self_attn.v_proj",
];

/** Opens `model` from a folder on the CPU device, where everything is float64. */
async function withModel(
  model: TestModel,
  body: (opened: BaseModel, device: CpuDevice) => Promise<void>,
): Promise<void> {
  await inTemporaryFolder(async (directory) => {
    await writeModel(directory, model);
    await using device = new CpuDevice();
    using opened = await openModel(device, directory);
    await body(opened, device);
  });
}

function oracleLogits(
  model: TestModel,
  sequence: Uint32Array,
  dense?: ReadonlyMap<string, number[][]>,
  frequencies?: number[],
): number[] {
  return oracleForward(model, sequence, dense, frequencies).logits.flat();
}

/** Random deltas on the device, and the same as dense matrices. */
function randomDeltas(
  opened: BaseModel,
  device: CpuDevice,
): { deltas: Deltas; dense: Map<string, number[][]> } {
  const deltas = new Map<string, Delta>();
  const dense = new Map<string, number[][]>();
  ADAPTED.forEach((module, index) => {
    const [out, inner] = opened.weight(module).shape as [number, number];
    const rank = index + 2;
    const a = gaussians(rank * inner, 100 + index),
      b = gaussians(out * rank, 200 + index).map((value) => value * 0.1);
    deltas.set(module, { a: device.upload(a, [rank, inner]), b: device.upload(b, [out, rank]) });
    const product = (o: number, i: number) =>
      Array.from({ length: rank }, (_, r) => b[o * rank + r]! * a[r * inner + i]!).reduce((x, y) => x + y);
    dense.set(
      module,
      Array.from({ length: out }, (_, o) => Array.from({ length: inner }, (_, i) => product(o, i))),
    );
  });
  return { deltas, dense };
}

const VARIANTS: Record<string, Partial<TestConfig>> = {
  "grouped-query attention": {},
  "one key/value head per query head": { num_key_value_heads: 6 },
  "a single key/value head": { num_key_value_heads: 1 },
  "tied embeddings": { tie_word_embeddings: true },
  "biases everywhere": { attention_bias: true, mlp_bias: true },
  "a Mistral": { architectures: ["MistralForCausalLM"], sliding_window: null },
  "a Qwen2 with its biases of queries, keys and values": { architectures: ["Qwen2ForCausalLM"] },
  "a Qwen3 with its norms of queries and keys": { architectures: ["Qwen3ForCausalLM"] },
};

for (const [name, changes] of Object.entries(VARIANTS)) {
  Deno.test(`DecoderModel.forward() agrees with the oracle given ${name}`, async () => {
    const model = randomModel({ ...SMALL_CONFIG, ...changes }, 7);
    await withModel(model, async (opened, device) => {
      using logits = opened.forward(SEQUENCES, NO_DELTAS);
      const expected = SEQUENCES.flatMap((sequence) => oracleLogits(model, sequence));
      assertEquals(logits.shape, [14, SMALL_CONFIG.vocab_size]);
      assertRelativelyClose(await device.download(logits), expected, 1e-12);
    });
  });
}

Deno.test("DecoderModel.forward() agrees with the oracle given scaled rotary frequencies", async () => {
  const rope_scaling = {
    rope_type: "llama3",
    factor: 4,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  };
  const model = randomModel({ ...SMALL_CONFIG, rope_scaling }, 8);
  const frequencies = Array.from({ length: 6 }, (_, plane) => {
    const plain = 500 ** (-plane / 6);
    const smooth = (32 * plain / (2 * Math.PI) - 1) / 3;
    return smooth >= 1 ? plain : smooth <= 0 ? plain / 4 : (1 - smooth) * plain / 4 + smooth * plain;
  });
  await withModel(model, async (opened, device) => {
    using logits = opened.forward([SEQUENCES[0]!], NO_DELTAS);
    const expected = oracleLogits(model, SEQUENCES[0]!, undefined, frequencies);
    assertRelativelyClose(await device.download(logits), expected, 1e-12);
  });
});

Deno.test("DecoderModel.forward() adds deltas as if they were part of the weights, and shows what modules read", async () => {
  const model = randomModel(SMALL_CONFIG, 9);
  await withModel(model, async (opened, device) => {
    const { deltas, dense } = randomDeltas(opened, device);
    const seen = new Map<string, Promise<ArrayLike<number>>>();
    const observe = (stage: { sites: readonly { module: string }[] }, input: Tensor) => {
      for (const { module } of stage.sites) seen.set(module, device.download(input));
    };
    using logits = opened.forward(SEQUENCES, deltas, { observe });
    const expected = SEQUENCES.map((sequence) => oracleForward(model, sequence, dense));
    assertRelativelyClose(
      await device.download(logits),
      expected.flatMap(({ logits }) => logits.flat()),
      1e-12,
    );
    assertEquals(seen.size, 14);
    for (const [module, input] of seen) {
      assertRelativelyClose(
        await input,
        expected.flatMap(({ inputs }) => inputs.get(module)!.flat()),
        1e-12,
        module,
      );
    }
    disposeDeltas(deltas);
  });
});

Deno.test("DecoderModel.forward() computes only the rows asked for", async () => {
  const model = randomModel(SMALL_CONFIG, 10);
  await withModel(model, async (opened, device) => {
    const { vocab_size: width } = SMALL_CONFIG;
    using whole = opened.forward(SEQUENCES, NO_DELTAS);
    const all = await device.download(whole);
    const rowsOf = (rows: number[]) =>
      rows.flatMap((row) => [...all.subarray(row * width, (row + 1) * width)]);
    using last = opened.forward(SEQUENCES, NO_DELTAS, { rows: "last" });
    assertEquals([...await device.download(last)], rowsOf([7, 8, 13]));
    using some = opened.forward(SEQUENCES, NO_DELTAS, { rows: Uint32Array.of(9, 0) });
    assertEquals([...await device.download(some)], rowsOf([9, 0]));
  });
});

Deno.test("DecoderModel.stages lists the modules that share an input, in order of computation", async () => {
  await withModel(randomModel(SMALL_CONFIG, 11), (opened) => {
    assertEquals(opened.stages.map(({ index, name }) => `${index} ${name}`), [
      "0 model.layers.0.self_attn.qkv",
      "1 model.layers.0.self_attn.o",
      "2 model.layers.0.mlp.gate_up",
      "3 model.layers.0.mlp.down",
      "4 model.layers.1.self_attn.qkv",
      "5 model.layers.1.self_attn.o",
      "6 model.layers.1.mlp.gate_up",
      "7 model.layers.1.mlp.down",
    ]);
    assertEquals(opened.stages[4]!.sites, [
      { module: "model.layers.1.self_attn.q_proj", inFeatures: 20, outFeatures: 72, writesStream: false },
      { module: "model.layers.1.self_attn.k_proj", inFeatures: 20, outFeatures: 24, writesStream: false },
      { module: "model.layers.1.self_attn.v_proj", inFeatures: 20, outFeatures: 24, writesStream: false },
    ]);
    const writers = opened.stages.flatMap(({ sites }) => sites).filter(({ writesStream }) => writesStream);
    assertEquals(writers.map(({ module }) => module.split(".").at(-1)), [
      "o_proj",
      "down_proj",
      "o_proj",
      "down_proj",
    ]);
    for (const { module, inFeatures, outFeatures } of opened.stages.flatMap(({ sites }) => sites)) {
      assertEquals(opened.weight(module).shape, [outFeatures, inFeatures]);
    }
    return Promise.resolve();
  });
});

Deno.test("DecoderModel.advance() leaves the earlier state usable, also when the later one is disposed first", async () => {
  await withModel(randomModel(SMALL_CONFIG, 12), async (opened, device) => {
    using start = opened.begin(SEQUENCES);
    const before = await device.download(start.input);
    const first = opened.advance(opened.stages[0]!, start, NO_DELTAS);
    const once = await device.download(first.input);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    using again = opened.advance(opened.stages[0]!, start, NO_DELTAS);
    assertEquals(await device.download(again.input), once);
    assertEquals(await device.download(start.input), before);
  });
});

Deno.test("DecoderModel.restore() continues from tensors that were moved to the host and back", async () => {
  await withModel(randomModel(SMALL_CONFIG, 13), async (opened, device) => {
    for (const stage of opened.stages.slice(0, 4)) {
      let state = opened.begin(SEQUENCES);
      for (const earlier of opened.stages.slice(0, stage.index)) {
        state = opened.advance(earlier, state, NO_DELTAS);
      }
      using direct = opened.advance(stage, state, NO_DELTAS);
      const copies = await Promise.all(
        [...state.tensors].map(async ([name, tensor]) =>
          [name, device.upload(await device.download(tensor), tensor.shape)] as const
        ),
      );
      using restored = opened.restore(stage, state.lengths, new Map(copies));
      using next = opened.advance(stage, restored, NO_DELTAS);
      assertEquals(await device.download(next.input), await device.download(direct.input), stage.name);
      assertEquals(await device.download(next.stream), await device.download(direct.stream), stage.name);
    }
  });
});

Deno.test("DecoderModel.dispose() and states give back all memory", async () => {
  await inTemporaryFolder(async (directory) => {
    await writeModel(directory, randomModel(SMALL_CONFIG, 14));
    await using device = new CpuDevice();
    const opened = await openModel(device, directory);
    const { deltas } = randomDeltas(opened, device);
    opened.forward(SEQUENCES, deltas).dispose();
    await opened.generate(SEQUENCES, deltas, { maxNewTokens: 3, eos: 2 });
    disposeDeltas(deltas);
    assert(device.memory.bytes > 0);
    opened.dispose();
    assertEquals(device.memory.bytes, 0);
  });
});

Deno.test("DecoderModel.generate() picks what full recomputation picks, and stops each row at its end", async () => {
  await withModel(randomModel(SMALL_CONFIG, 15), async (opened, device) => {
    const { deltas } = randomDeltas(opened, device);
    const maxNewTokens = 7;
    const free = await recomputed(opened, device, deltas, maxNewTokens);
    const generated = await opened.generate(SEQUENCES, deltas, { maxNewTokens, eos: [] });
    assertEquals(generated.map((tokens) => [...tokens]), free);
    // An end that comes early in one completion and not in all others.
    const eos = free[0]![2]!;
    const ended = free.map((tokens) =>
      tokens.includes(eos) ? tokens.slice(0, tokens.indexOf(eos) + 1) : tokens
    );
    assert(
      new Set(ended.map(({ length }) => length)).size > 1,
      "the test needs completions of several lengths",
    );
    const stopped = await opened.generate(SEQUENCES, deltas, { maxNewTokens, eos });
    assertEquals(stopped.map((tokens) => [...tokens]), ended);
    assertEquals(
      await opened.generate(SEQUENCES, deltas, { maxNewTokens: 0, eos }),
      SEQUENCES.map(() => new Uint32Array()),
    );
  });
});

Deno.test("DecoderModel.generate() says that logits are not finite instead of completing with nonsense", async () => {
  await withModel(randomModel(SMALL_CONFIG, 18), async (opened, device) => {
    const a = device.upload(new Float64Array(40).fill(NaN), [2, 20]),
      b = device.upload(new Float64Array(144).fill(1), [72, 2]);
    const deltas = new Map([["model.layers.0.self_attn.q_proj", { a, b }]]);
    const options = { maxNewTokens: 2, eos: 2 };
    const error = await assertRejects(() => opened.generate(SEQUENCES, deltas, options), ModelError);
    assertEquals([error.code, error.where], ["non_finite", "logits"]);
  });
});

/** Greedy completions without a cache: a whole pass of each single sequence for every token. */
async function recomputed(
  opened: BaseModel,
  device: CpuDevice,
  deltas: Deltas,
  maxNewTokens: number,
): Promise<number[][]> {
  const completions: number[][] = [];
  for (const prompt of SEQUENCES) {
    const tokens = [...prompt];
    for (let step = 0; step < maxNewTokens; step++) {
      using logits = opened.forward([Uint32Array.from(tokens)], deltas);
      const last = [...(await device.download(logits))].slice(-SMALL_CONFIG.vocab_size);
      tokens.push(last.indexOf(Math.max(...last)));
    }
    completions.push(tokens.slice(prompt.length));
  }
  return completions;
}

Deno.test("DecoderModel refuses tokens, deltas, modules and states that do not fit", async () => {
  await withModel(randomModel(SMALL_CONFIG, 16), async (opened, device) => {
    const [first, second] = opened.stages as [typeof opened.stages[0], typeof opened.stages[0]];
    const thrown = (body: () => unknown) => assertThrows(body, ModelError);
    assertEquals(thrown(() => opened.begin([Uint32Array.of(37)])).code, "token_out_of_range");
    assertEquals(thrown(() => opened.forward([new Uint32Array(65)], NO_DELTAS)).code, "sequence_too_long");
    assertEquals(thrown(() => opened.weight("lm_head")).code, "unknown_module");
    using start = opened.begin(SEQUENCES);
    assertEquals(thrown(() => opened.advance(second, start, NO_DELTAS)).code, "wrong_stage");
    assertEquals(thrown(() => opened.advance({ ...first }, start, NO_DELTAS)).code, "wrong_stage");
    assertEquals(thrown(() => opened.logits(start)).code, "wrong_stage");
    assertEquals(thrown(() => opened.restore(first, [1], new Map())).code, "missing_tensor");

    const delta = { a: device.zeros([2, 20]), b: device.zeros([71, 2]) };
    const wrongShape = new Map([["model.layers.0.self_attn.q_proj", delta]]);
    for (
      const error of [
        thrown(() => opened.advance(first, start, wrongShape)),
        thrown(() => opened.forward(SEQUENCES, wrongShape)),
      ]
    ) {
      assertEquals([error.code, error.where], ["adapter_mismatch", "model.layers.0.self_attn.q_proj"]);
      assertStringIncludes(error.message, "A [2,20] and B [71,2]");
      assertStringIncludes(error.message, "A [rank, 20] and B [72, rank]");
    }
    const elsewhere = new Map([["model.layers.7.self_attn.q_proj", delta]]);
    const error = thrown(() => opened.forward(SEQUENCES, elsewhere));
    assertEquals([error.code, error.where], ["adapter_mismatch", "model.layers.7.self_attn.q_proj"]);
    const options = { maxNewTokens: 1, eos: 2 };
    const early = await assertRejects(() => opened.generate(SEQUENCES, elsewhere, options), ModelError);
    assertEquals(early.code, "adapter_mismatch");
    const tooLong = await assertRejects(
      () => opened.generate(SEQUENCES, NO_DELTAS, { maxNewTokens: 60, eos: 2 }),
      ModelError,
    );
    assertEquals(tooLong.code, "sequence_too_long");
  });
});

Deno.test("openModel() names the weight that is missing, misshapen or not finite", async () => {
  const model = randomModel(SMALL_CONFIG, 17);
  const name = "model.layers.1.mlp.up_proj.weight";
  const altered = async (
    change: (weights: Map<string, { shape: readonly number[]; values: Float64Array<ArrayBuffer> }>) => void,
  ) => {
    const weights = new Map(model.weights);
    change(weights);
    const error = await assertRejects(
      () => withModel({ ...model, weights }, () => Promise.resolve()),
      ModelError,
    );
    assertStringIncludes(error.where, name);
    return error;
  };
  assertEquals((await altered((weights) => weights.delete(name))).code, "missing_weight");
  const misshapen = await altered((weights) =>
    weights.set(name, { shape: [20, 28], values: weights.get(name)!.values })
  );
  assertEquals(misshapen.code, "wrong_weight_shape");
  assertStringIncludes(misshapen.message, "[20,28]");
  assertStringIncludes(misshapen.message, "[28,20]");
  const broken = await altered((weights) => {
    const values = weights.get(name)!.values.slice();
    values.set([NaN, Infinity], 5);
    weights.set(name, { shape: [28, 20], values });
  });
  assertEquals(broken.code, "non_finite");
  assertStringIncludes(broken.message, "2 NaN or infinite");
});
