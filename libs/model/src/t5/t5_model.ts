import { gemm, type Tensor } from "@lora-loom/tensor";
import type { DifferentiableModel, Trace, TraceOptions } from "../backward/differentiable.ts";
import type { Activations, Deltas, GenerateOptions, Stage } from "../base_model.ts";
import { checkSequences, concatenated } from "../batch.ts";
import { NO_HOLD } from "../residency.ts";
import { Shared } from "../shared.ts";
import { StagedActivations, takenOver } from "../staged_activations.ts";
import { StagedModel } from "../staged_model.ts";
import { fullSpans, selfSpans, splitAtAnswers, type T5Batch, t5Batch } from "./batch.ts";
import type { T5Config } from "./config.ts";
import { generateT5 } from "./generate.ts";
import type { T5Layers } from "./layers.ts";
import { type AttentionNames, finalNorm, type Stack } from "./modules.ts";
import { blockNorm, type T5Stage, t5Stages } from "./stages.ts";
import { T5Trace } from "./t5_trace.ts";

/** Tensors of a new state by name, which it takes over: new ones, and holds of an earlier state's. */
type Parts = Readonly<Record<string, Tensor | Shared<Tensor>>>;

/**
 * An encoder-decoder: four stages a block of the encoder, one with the keys and values of all cross-attentions, and six a block of
 * the decoder. A state holds the stream of the stack that runs, besides it while the encoder runs the decoder's embeddings
 * (`answers`), and while the decoder runs the encoder's output (`encoded`).
 */
export class T5Model extends StagedModel<T5Stage> implements DifferentiableModel {
  readonly residency = "resident";
  readonly #layers: T5Layers;

  constructor(layers: T5Layers) {
    super(t5Stages(layers.config));
    this.#layers = layers;
  }

  get config(): T5Config {
    return this.#layers.config;
  }

  hold(): Promise<Disposable> {
    return Promise.resolve(NO_HOLD);
  }

  begin(sequences: readonly Uint32Array[], answerStarts?: readonly number[]): Activations {
    checkSequences(sequences, this.config);
    const { prompts, answers } = splitAtAnswers(sequences, answerStarts, this.config.startToken);
    const stream = this.#layers.embed(concatenated(prompts));
    const batch = t5Batch(sequences.map(({ length }) => length), answerStarts);
    return this.#before(0, batch, {
      input: this.#layers.norm(stream, blockNorm("encoder", 0, this.config)),
      stream,
      answers: this.#layers.embed(concatenated(answers)),
    });
  }

  advance(stage: Stage, at: Activations, deltas: Deltas): Activations {
    const state = this.stateBefore(stage, at, deltas);
    const batch = t5Batch(state.lengths, state.answerStarts);
    const { work } = this.stages[stage.index]!;
    const next = (changed: Parts) =>
      this.#before(state.next + 1, batch, { ...carried(state, changed), ...changed });
    switch (work.kind) {
      case "self_attention":
        return next({ input: this.#attendToSelf(work.stack, work.names, batch, state.input, deltas) });
      case "cross_attention":
        return next({ input: this.#attendToPrompt(work.names, batch, state, deltas) });
      case "mlp":
        return next({ input: this.#layers.mlpHidden(work.names, state.input, deltas) });
      case "encoded":
        return next({ input: this.#layers.norm(state.stream, work.nextNorm), encoded: state.hold("input") });
      case "output": {
        const stream = this.#layers.written(work.module, state.input, state.stream, deltas);
        const input = this.#layers.norm(stream, work.nextNorm);
        if (this.stages[state.next + 1]?.work.kind !== "encoded") return next({ input, stream });
        // The encoder is done: its output is what the cross-attentions read, and the decoder's stream begins.
        stream.dispose();
        return this.#before(state.next + 1, batch, { input, stream: state.hold("answers") });
      }
    }
  }

  restore(
    stage: Stage,
    lengths: readonly number[],
    tensors: ReadonlyMap<string, Tensor>,
    answerStarts?: readonly number[],
  ): Activations {
    const { index } = stage;
    const { work, reads } = this.stages[index]!;
    const beside = work.kind === "encoded" ? [] : [reads === "prompt" ? "answers" : "encoded"];
    const taken = takenOver(stage, tensors, ["input", "stream", ...beside]);
    return this.#before(index, t5Batch(lengths, answerStarts), Object.fromEntries(taken));
  }

  weight(module: string): Tensor {
    return this.#layers.weights.linear(this.siteOf(module).module).weight;
  }

  async generate(
    prompts: readonly Uint32Array[],
    deltas: Deltas,
    options: GenerateOptions,
  ): Promise<Uint32Array[]> {
    this.checkDeltas(deltas);
    return await generateT5(this.#layers, prompts, deltas, options);
  }

  get layerReads(): readonly Stage["reads"][] {
    const { encoderLayers, decoderLayers } = this.config;
    return [...new Array(encoderLayers).fill("prompt"), ...new Array(decoderLayers).fill("answer")];
  }

  trace(sequences: readonly Uint32Array[], deltas: Deltas, options?: TraceOptions): Trace {
    checkSequences(sequences, this.config);
    this.checkDeltas(deltas);
    return new T5Trace(this.#layers, sequences, deltas, (module) => this.siteOf(module), options);
  }

  normalise(stream: Tensor): Tensor {
    return this.#layers.norm(stream, finalNorm("decoder"));
  }

  readOut(output: Tensor): Tensor {
    return this.#layers.logits(output);
  }

  readOutBackward(gradient: Tensor): Tensor {
    return gemm(gradient, this.#layers.weights.head, { alpha: this.config.outputScale });
  }

  dispose(): void {
    this.#layers[Symbol.dispose]();
  }

  protected override outputLengths({ lengths, answerStarts }: StagedActivations): readonly number[] {
    return t5Batch(lengths, answerStarts).answerLengths;
  }

  #before(next: number, { lengths, answerStarts }: T5Batch, parts: Parts): StagedActivations {
    const held = new Map(
      Object.entries(parts).map(([name, part]) => [name, part instanceof Shared ? part : new Shared(part)]),
    );
    return new StagedActivations(next, lengths, held, answerStarts);
  }

  #attendToSelf(stack: Stack, names: AttentionNames, batch: T5Batch, input: Tensor, deltas: Deltas): Tensor {
    using queries = this.#layers.linear(names.query, input, deltas);
    using keys = this.#layers.linear(names.key, input, deltas);
    using values = this.#layers.linear(names.value, input, deltas);
    const { spans, positions, longest } = selfSpans(stack, batch);
    const bias = this.#layers.distanceBias(stack, positions, longest);
    using _origins = bias.origins;
    return this.#layers.attend(queries, keys, values, spans, bias);
  }

  #attendToPrompt(names: AttentionNames, batch: T5Batch, state: StagedActivations, deltas: Deltas): Tensor {
    const encoded = state.get("encoded");
    using queries = this.#layers.linear(names.query, state.input, deltas);
    using keys = this.#layers.linear(names.key, encoded, deltas);
    using values = this.#layers.linear(names.value, encoded, deltas);
    return this.#layers.attend(queries, keys, values, fullSpans(batch.answerLengths, batch.promptLengths));
  }
}

/** What a state has besides its input and what changes, for the next state to hold. */
function carried(state: StagedActivations, changed: Parts): Parts {
  const names = [...state.shared.keys()].filter((name) => name !== "input" && !(name in changed));
  return Object.fromEntries(names.map((name) => [name, state.hold(name)]));
}
