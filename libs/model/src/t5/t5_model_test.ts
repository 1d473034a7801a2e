import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { CpuDevice, type Tensor } from "@lora-loom/tensor";
import type { BaseModel, Deltas } from "../base_model.ts";
import { disposeDeltas } from "../deltas.ts";
import { ModelError } from "../errors.ts";
import { openModel } from "../open_model.ts";
import { openFamily } from "../test_support/family_fixture.ts";
import { parseT5Config } from "./config.ts";

const NO_DELTAS: Deltas = new Map();
const SEQUENCES = [Uint32Array.of(5, 6, 7, 8, 9, 10), Uint32Array.of(11, 12, 13)];
const ANSWER_STARTS = [4, 3];

async function withT5(
  body: (model: BaseModel, device: CpuDevice, deltas: Deltas) => Promise<void>,
): Promise<void> {
  const { folder, deltas: load } = await openFamily("t5");
  await using device = new CpuDevice();
  using model = await openModel(device, folder);
  const deltas = await load(device);
  await body(model, device, deltas);
  disposeDeltas(deltas);
  model.dispose();
  assertEquals(device.memory.bytes, 0, "every tensor was given back");
}

Deno.test("T5Model.stages lists the encoder, all cross-attentions' keys and values in one, and the decoder", async () => {
  await withT5((model) => {
    const names = model.stages.map(({ name, reads }) => `${reads} ${name}`);
    assertEquals(names.slice(0, 4), [
      "prompt encoder.block.0.layer.0.SelfAttention.qkv",
      "prompt encoder.block.0.layer.0.SelfAttention.o",
      "prompt encoder.block.0.layer.1.DenseReluDense.wi",
      "prompt encoder.block.0.layer.1.DenseReluDense.wo",
    ]);
    assertEquals(names.slice(8, 15), [
      "prompt decoder.EncDecAttention.kv",
      "answer decoder.block.0.layer.0.SelfAttention.qkv",
      "answer decoder.block.0.layer.0.SelfAttention.o",
      "answer decoder.block.0.layer.1.EncDecAttention.q",
      "answer decoder.block.0.layer.1.EncDecAttention.o",
      "answer decoder.block.0.layer.2.DenseReluDense.wi",
      "answer decoder.block.0.layer.2.DenseReluDense.wo",
    ]);
    assertEquals(model.stages[8]!.sites.map(({ module }) => module), [
      "decoder.block.0.layer.1.EncDecAttention.k",
      "decoder.block.0.layer.1.EncDecAttention.v",
      "decoder.block.1.layer.1.EncDecAttention.k",
      "decoder.block.1.layer.1.EncDecAttention.v",
    ]);
    const writers = model.stages.flatMap(({ sites }) => sites).filter(({ writesStream }) => writesStream);
    assertEquals([...new Set(writers.map(({ module }) => module.split(".").slice(-2).join(".")))], [
      "SelfAttention.o",
      "DenseReluDense.wo",
      "EncDecAttention.o",
    ]);
    return Promise.resolve();
  });
});

Deno.test("T5Model.restore() continues from tensors that were moved to the host and back", async () => {
  await withT5(async (model, device, deltas) => {
    let state = model.begin(SEQUENCES, ANSWER_STARTS);
    for (const stage of model.stages) {
      const next = model.advance(stage, state, deltas);
      const copies = new Map<string, Tensor>();
      for (const [name, tensor] of state.tensors) {
        copies.set(name, device.upload(await device.download(tensor), tensor.shape));
      }
      using restored = model.restore(stage, state.lengths, copies, ANSWER_STARTS);
      using again = model.advance(stage, restored, deltas);
      for (const [name, tensor] of next.tensors) {
        assertEquals(
          await device.download(again.tensors.get(name)!),
          await device.download(tensor),
          stage.name,
        );
      }
      state[Symbol.dispose]();
      state = next;
    }
    using logits = model.logits(state);
    // The start token and two of an answer; the start token alone.
    assertEquals(logits.shape, [4, 64]);
    state[Symbol.dispose]();
  });
});

Deno.test("T5Model.generate() stops each answer at its end", async () => {
  await withT5(async (model, _device, deltas) => {
    const options = { maxNewTokens: 8, eos: [] as number[] };
    const free = await model.generate(SEQUENCES, deltas, options);
    const eos = free[1]![2]!;
    const stopped = await model.generate(SEQUENCES, deltas, { ...options, eos });
    const ended = (tokens: Uint32Array) => {
      const end = tokens.indexOf(eos);
      return end < 0 ? [...tokens] : [...tokens.subarray(0, end + 1)];
    };
    assertEquals(stopped.map((tokens) => [...tokens]), free.map(ended));
    const none = await model.generate(SEQUENCES, deltas, { ...options, maxNewTokens: 0 });
    assertEquals(none, SEQUENCES.map(() => new Uint32Array()));
  });
});

Deno.test("T5Model refuses batches, deltas, modules and states that do not fit", async () => {
  await withT5(async (model, device) => {
    const [first, second] = model.stages;
    const thrown = (body: () => unknown) => assertThrows(body, ModelError);
    assertEquals(thrown(() => model.begin([Uint32Array.of(64)])).code, "token_out_of_range");
    for (const start of [0, 7, 1.5]) {
      const error = thrown(() => model.begin(SEQUENCES, [start, 1]));
      assertEquals([error.code, error.where], ["invalid_answer_start", "sequence 0"]);
    }
    assertEquals(thrown(() => model.weight("lm_head")).code, "unknown_module");
    using start = model.begin(SEQUENCES);
    assertEquals(thrown(() => model.advance(second!, start, NO_DELTAS)).code, "wrong_stage");
    assertEquals(thrown(() => model.logits(start)).code, "wrong_stage");
    const missing = thrown(() => model.restore(first!, [1], new Map([["input", start.input]])));
    assertEquals(missing.code, "missing_tensor");
    assertStringIncludes(missing.message, "input, stream, answers");

    const delta = { a: device.zeros([2, 32]), b: device.zeros([47, 2]) };
    const deltas = new Map([["encoder.block.0.layer.0.SelfAttention.q", delta]]);
    assertEquals(thrown(() => model.forward(SEQUENCES, deltas)).code, "adapter_mismatch");
    const options = { maxNewTokens: 1, eos: 2 };
    const early = await assertRejects(() => model.generate(SEQUENCES, deltas, options), ModelError);
    assertEquals(early.code, "adapter_mismatch");
    disposeDeltas(deltas);
  });
});

Deno.test("parseT5Config() reads both generations of T5, and refuses what would change the mathematics", () => {
  const json = { d_model: 16, d_kv: 4, d_ff: 20, num_layers: 2, num_heads: 4, vocab_size: 9 };
  const first = parseT5Config(json, "");
  assertEquals([first.decoderLayers, first.activation, first.gated, first.outputScale], [
    2,
    "relu",
    false,
    0.25,
  ]);
  const flan = {
    ...json,
    feed_forward_proj: "gated-gelu",
    tie_word_embeddings: false,
    num_decoder_layers: 1,
  };
  const second = parseT5Config(flan, "");
  assertEquals([second.decoderLayers, second.activation, second.gated, second.outputScale], [
    1,
    "gelu_tanh",
    true,
    1,
  ]);
  // As Transformers 5 writes it again.
  const again = { ...flan, tie_word_embeddings: true, scale_decoder_outputs: false };
  assertEquals(parseT5Config(again, ""), second);
  const refusal = (changes: object) =>
    assertThrows(() => parseT5Config({ ...json, ...changes }, "m/config.json"), ModelError).code;
  assertEquals(refusal({ feed_forward_proj: "gelu" }), "unsupported_feed_forward_proj");
  assertEquals(refusal({ d_kv: 6 }), "unsupported_d_kv");
  assertEquals(refusal({ quantization_config: { quant_method: "gptq" } }), "unsupported_quantization");
  assertEquals(refusal({ d_model: "16" }), "invalid_config");
});
