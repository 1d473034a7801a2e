import { assert, assertEquals } from "@std/assert";
import { assertRelativelyClose, relativeError } from "@lora-loom/testing";
import type { Device } from "@lora-loom/tensor";
import { FactorGradients } from "../backward/factor_gradients.ts";
import type { Deltas } from "../base_model.ts";
import { disposeDeltas } from "../deltas.ts";
import { openModel } from "../open_model.ts";
import { ADAPTER_SCALE, adapterDeltas, BASE, openGradients, openReference, TASKS } from "./tiny_llama.ts";

const NO_DELTAS: Deltas = new Map();

// The references come from a model that was cast to bfloat16 as a whole before it ran in float32.
const AS_REFERENCE = { rotaryFrequencies: "bfloat16" } as const;

/**
 * Registers the tests of the example model on one device, against what Transformers and PEFT computed.
 *
 * @param tolerance relative Frobenius distance allowed to the float32 references
 */
export function checkTinyLlama(deviceName: string, open: () => Promise<Device>, tolerance: number): void {
  Deno.test(`LlamaModel reproduces Transformers' logits of base and adapters on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE, AS_REFERENCE);
    const reference = await openReference();
    using base = model.forward(TASKS.map((task) => reference.tokens(task)), NO_DELTAS);
    assertRelativelyClose(
      await device.download(base),
      TASKS.flatMap((task) => [...reference.baseLogits(task)]),
      tolerance,
      "base",
    );
    for (const task of TASKS) {
      const deltas = await adapterDeltas(device, task);
      using logits = model.forward([reference.tokens(task)], deltas);
      assertRelativelyClose(await device.download(logits), reference.logits(task), tolerance, task);
      disposeDeltas(deltas);
    }
  });

  Deno.test(`LlamaModel shows every adapted module's input as Transformers has it on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE, AS_REFERENCE);
    const reference = await openReference();
    const deltas = await adapterDeltas(device, "language");
    const seen = new Map<string, Promise<ArrayLike<number>>>();
    model.forward([reference.tokens("language")], deltas, {
      observe: (stage, input) => {
        for (const { module } of stage.sites) seen.set(module, device.download(input));
      },
    }).dispose();
    assertEquals([...seen.keys()].sort(), [...reference.languageInputs.keys()].sort());
    for (const [module, input] of seen) {
      assertRelativelyClose(await input, reference.languageInputs.get(module)!, tolerance, module);
    }
    disposeDeltas(deltas);
  });

  Deno.test(`LlamaModel with exact rotary frequencies stays near the references on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE);
    const reference = await openReference();
    using logits = model.forward([reference.tokens("language")], NO_DELTAS);
    const error = relativeError(await device.download(logits), reference.baseLogits("language"));
    assert(error > tolerance && error < 2e-3, `relative error ${error}`);
  });

  Deno.test(`LlamaModel gives a ragged batch what it gives single sequences on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE);
    const reference = await openReference();
    const deltas = await adapterDeltas(device, "speech");
    const sequences = TASKS.map((task) => reference.tokens(task));
    using batch = model.forward(sequences, deltas, { rows: "last" });
    const together = await device.download(batch);
    const alone: number[] = [];
    for (const sequence of sequences) {
      using logits = model.forward([sequence], deltas, { rows: "last" });
      alone.push(...await device.download(logits));
    }
    assertRelativelyClose(together, alone, tolerance);
    disposeDeltas(deltas);
  });

  Deno.test(`LlamaModel.generate() picks what full recomputation picks on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE);
    const reference = await openReference();
    const deltas = await adapterDeltas(device, "syllables");
    const sequences = (["syllables", "category"] as const).map((task) => reference.tokens(task));
    const generated = await model.generate(sequences, deltas, { maxNewTokens: 3, eos: [] });
    for (const [index, sequence] of sequences.entries()) {
      const tokens = [...sequence];
      for (let step = 0; step < 3; step++) {
        using logits = model.forward([Uint32Array.from(tokens)], deltas, { rows: "last" });
        const values = [...await device.download(logits)];
        tokens.push(values.indexOf(Math.max(...values)));
      }
      assertEquals([...generated[index]!], tokens.slice(sequence.length));
    }
    disposeDeltas(deltas);
    model.dispose();
    assertEquals(device.memory.bytes, 0, "every tensor was given back");
  });

  Deno.test(`LlamaModel gives the same bytes twice on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE);
    const sequence = (await openReference()).tokens("category");
    using first = model.forward([sequence], NO_DELTAS);
    using second = model.forward([sequence], NO_DELTAS);
    const values = await device.download(first);
    assert(values.some((value) => value !== 0));
    assertEquals(await device.download(second), values);
  });

  Deno.test(`LlamaModel.trace() gives PyTorch's gradients at an adapter's factors on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE);
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
        10 * tolerance,
        module,
      );
      assertRelativelyClose(scaled, gradients.get(`${module}.lora_B`)!, 10 * tolerance, module);
    }
    streams.forEach((tensor) => tensor.dispose());
    disposeDeltas(deltas);
  });
}
