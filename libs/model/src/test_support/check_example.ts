import { assert, assertEquals } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import type { Device } from "@lora-loom/tensor";
import type { Deltas } from "../base_model.ts";
import { disposeDeltas } from "../deltas.ts";
import type { OpenModelOptions } from "../model_family.ts";
import { openModel } from "../open_model.ts";
import { type ExampleModel, TASKS } from "./example_model.ts";

const NO_DELTAS: Deltas = new Map();

/** How to compare. */
export interface CheckOptions {
  /** For test names. */
  readonly deviceName: string;
  readonly open: () => Promise<Device>;
  /** Relative Frobenius distance allowed to the float32 references. */
  readonly tolerance: number;
  /** How the model has to be opened to agree with the references. */
  readonly asReference?: OpenModelOptions;
}

/** Registers the tests of an example model on one device, against what Transformers and PEFT computed. */
export function checkExample(
  { name, base: BASE, adapterDeltas, openReference }: ExampleModel,
  { deviceName, open, tolerance, asReference = {} }: CheckOptions,
): void {
  Deno.test(`${name} reproduces Transformers' logits of base and adapters on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE, asReference);
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

  Deno.test(`${name} shows every adapted module's input as Transformers has it on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE, asReference);
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

  Deno.test(`${name} gives a ragged batch what it gives single sequences on ${deviceName}`, async () => {
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

  Deno.test(`${name}.generate() picks what full recomputation picks on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE);
    const reference = await openReference();
    const deltas = await adapterDeltas(device, "syllables");
    const sequences = (["syllables", "category"] as const).map((task) => reference.tokens(task));
    const generated = await model.generate(sequences, deltas, { maxNewTokens: 3, eos: [] });
    for (const [index, sequence] of sequences.entries()) {
      const tokens = [...sequence];
      for (let step = 0; step < 3; step++) {
        using logits = model.forward([Uint32Array.from(tokens)], deltas, {
          rows: "last",
          answerStarts: [sequence.length],
        });
        const values = [...await device.download(logits)];
        tokens.push(values.indexOf(Math.max(...values)));
      }
      assertEquals([...generated[index]!], tokens.slice(sequence.length));
    }
    disposeDeltas(deltas);
    model.dispose();
    assertEquals(device.memory.bytes, 0, "every tensor was given back");
  });

  Deno.test(`${name} gives the same bytes twice on ${deviceName}`, async () => {
    await using device = await open();
    using model = await openModel(device, BASE);
    const sequence = (await openReference()).tokens("category");
    using first = model.forward([sequence], NO_DELTAS);
    using second = model.forward([sequence], NO_DELTAS);
    const values = await device.download(first);
    assert(values.some((value) => value !== 0));
    assertEquals(await device.download(second), values);
  });
}
