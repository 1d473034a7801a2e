import { concatRows, copy, gemm, type Tensor } from "@lora-loom/tensor";
import { linearName, type LinearRole, rolesOf, sharersOf, type WritingRole } from "./architecture.ts";
import type { Activations, Deltas, GenerateOptions, Stage } from "./base_model.ts";
import { causalSpans, checkSequences, concatenated, positionsOf, tokenCount } from "./batch.ts";
import { type DecoderConfig, windowOf } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import { decoderStages, firstRoles, LAYER_STAGES } from "./decoder_stages.ts";
import { DecoderTrace } from "./backward/decoder_trace.ts";
import type { DifferentiableModel, Trace, TraceOptions } from "./backward/differentiable.ts";
import { generateGreedily } from "./generate.ts";
import { disposableOnce, Holds } from "./holds.ts";
import { NO_HOLD, type Residency } from "./residency.ts";
import { softCapBackward } from "./ops/soft_cap.ts";
import { Shared } from "./shared.ts";
import { StagedActivations, takenOver } from "./staged_activations.ts";
import { StagedModel } from "./staged_model.ts";

/** A decoder-only model: four stages a layer, [q, k, v], [o], [gate, up] and [down]. Made by `openModel`. */
export class DecoderModel extends StagedModel implements DifferentiableModel {
  readonly #decoder: Decoder;
  readonly #keyValueBytes: number;
  readonly #places: ReadonlyMap<string, Place>;
  /** Of modules with several roles. */
  readonly #wholeWeights = new Map<string, Tensor>();
  /** Weights of stages, where they are streamed. */
  readonly #held = new Holds<Disposable>();

  /** @param keyValueBytes most that keys and values of prompts that are decoded together may take */
  constructor(decoder: Decoder, keyValueBytes: number) {
    super(decoderStages(decoder.architecture, decoder.config));
    this.#decoder = decoder;
    this.#keyValueBytes = keyValueBytes;
    this.#places = placesOfModules(decoder);
  }

  get config(): DecoderConfig {
    return this.#decoder.config;
  }

  get residency(): Residency {
    return this.#decoder.weights.residency;
  }

  async hold(part: Stage | readonly Uint32Array[] | "head"): Promise<Disposable> {
    const { weights } = this.#decoder;
    if (part === "head") return await weights.holdHead();
    if (!("index" in part)) {
      checkSequences(part, this.config);
      return await weights.holdEmbeddings(concatenated(part));
    }
    if (weights.residency === "resident") return NO_HOLD;
    return await this.#held.hold(part.name, () => this.#holdStage(part));
  }

  begin(sequences: readonly Uint32Array[]): Activations {
    checkSequences(sequences, this.config);
    const lengths = sequences.map((sequence) => sequence.length);
    const stream = this.#decoder.embed(concatenated(sequences), positionsOf(lengths));
    return this.#stateBefore(0, lengths, this.#firstNorm(stream, 0), new Shared(stream));
  }

  advance(stage: Stage, at: Activations, deltas: Deltas): Activations {
    const state = this.stateBefore(stage, at, deltas);
    const layer = Math.floor(stage.index / LAYER_STAGES.length);
    switch (LAYER_STAGES[stage.index % LAYER_STAGES.length]!.kind) {
      case "attention_in":
        return this.#keepStream(state, this.#attend(layer, state, deltas));
      case "attention_out": {
        const stream = this.#writeStream(layer, "output", state, deltas);
        const input = this.#decoder.norm(layer, "mlp", stream);
        return this.#stateBefore(state.next + 1, state.lengths, input, new Shared(stream));
      }
      case "mlp_in":
        return this.#keepStream(state, this.#decoder.gatedUp(layer, state.input, deltas));
      case "mlp_out": {
        const stream = this.#writeStream(layer, "down", state, deltas);
        return this.#stateBefore(
          state.next + 1,
          state.lengths,
          this.#firstNorm(stream, layer + 1),
          new Shared(stream),
        );
      }
    }
  }

  restore(stage: Stage, lengths: readonly number[], tensors: ReadonlyMap<string, Tensor>): Activations {
    return new StagedActivations(stage.index, lengths, takenOver(stage, tensors, ["input", "stream"]));
  }

  /** A module's whole weight; that of a module with several roles is put together once. */
  weight(module: string): Tensor {
    const { layer, role } = this.#places.get(this.siteOf(module).module)!;
    const { linears } = this.#decoder.weights.layer(layer);
    const sharers = sharersOf(this.#decoder.architecture, role);
    if (sharers.length === 1) return linears[role]!.weight;
    let whole = this.#wholeWeights.get(module);
    if (!whole) {
      whole = concatRows(sharers.map((sharer) => linears[sharer]!.weight));
      this.#wholeWeights.set(module, whole);
    }
    return whole;
  }

  async generate(
    prompts: readonly Uint32Array[],
    deltas: Deltas,
    options: GenerateOptions,
  ): Promise<Uint32Array[]> {
    this.checkDeltas(deltas);
    return await generateGreedily(this.#decoder, prompts, deltas, options, this.#keyValueBytes);
  }

  get layerReads(): readonly undefined[] {
    return new Array(this.config.layers).fill(undefined);
  }

  trace(sequences: readonly Uint32Array[], deltas: Deltas, options?: TraceOptions): Trace {
    checkSequences(sequences, this.config);
    this.checkDeltas(deltas);
    return new DecoderTrace(this.#decoder, sequences, deltas, (module) => this.siteOf(module), options);
  }

  normalise(stream: Tensor): Tensor {
    return this.#decoder.finalNorm(stream);
  }

  readOut(output: Tensor): Tensor {
    return this.#decoder.logits(output);
  }

  readOutBackward(gradient: Tensor, logits: Tensor): Tensor {
    const { outputSoftCap } = this.config;
    using before = outputSoftCap === undefined ? undefined : softCapBackward(gradient, logits, outputSoftCap);
    return gemm(before ?? gradient, this.#decoder.weights.head);
  }

  dispose(): void {
    this.#held.clear();
    for (const weight of this.#wholeWeights.values()) weight.dispose();
    this.#wholeWeights.clear();
    this.#decoder[Symbol.dispose]();
  }

  async #holdStage(stage: Stage): Promise<Disposable> {
    const { weights } = this.#decoder;
    const held = await weights.holdLinears(...this.#linearsOf(stage));
    const next = this.stages[stage.index + 1];
    if (next) weights.expect(...this.#linearsOf(next));
    return disposableOnce(() => {
      for (const { module } of stage.sites) this.#forgetWhole(module);
      held[Symbol.dispose]();
    });
  }

  /** The layer of a stage and the roles that it computes with. */
  #linearsOf({ index }: Stage): [layer: number, roles: readonly LinearRole[]] {
    const { roles } = LAYER_STAGES[index % LAYER_STAGES.length]!;
    const existing = rolesOf(this.#decoder.architecture);
    return [
      Math.floor(index / LAYER_STAGES.length),
      existing.filter((role) => roles.some((r) => r === role)),
    ];
  }

  #forgetWhole(module: string): void {
    this.#wholeWeights.get(module)?.dispose();
    this.#wholeWeights.delete(module);
  }

  /** Causal self-attention within each sequence, `[tokens, queryHeads·headDim]`. */
  #attend(layer: number, { input, lengths }: StagedActivations, deltas: Deltas): Tensor {
    const { device } = this.#decoder;
    this.#decoder.reservePositions(Math.max(...lengths));
    const angles = positionsOf(lengths, (length) => this.#decoder.firstAngle(length));
    using positions = device.upload(angles, [tokenCount(lengths)], "u32");
    using spans = device.upload(
      causalSpans(lengths, windowOf(this.config, layer)),
      [tokenCount(lengths), 2],
      "u32",
    );
    using queries = this.#decoder.queries(layer, input, positions, deltas);
    using keys = this.#decoder.keys(layer, input, positions, deltas);
    using values = this.#decoder.linear(layer, "value", input, deltas);
    return this.#decoder.attend(queries, keys, values, spans);
  }

  /** A new stream: the old one, which an earlier state still holds, plus the module's output. */
  #writeStream(layer: number, role: WritingRole, state: StagedActivations, deltas: Deltas): Tensor {
    const stream = copy(state.stream);
    this.#decoder.write(layer, role, state.input, deltas, stream);
    return stream;
  }

  /** What a layer's first stage reads; past the last layer, the final norm. */
  #firstNorm(stream: Tensor, layer: number): Tensor {
    return layer < this.config.layers
      ? this.#decoder.norm(layer, "attention", stream)
      : this.#decoder.finalNorm(stream);
  }

  #keepStream(state: StagedActivations, input: Tensor): Activations {
    return this.#stateBefore(state.next + 1, state.lengths, input, state.hold("stream"));
  }

  #stateBefore(next: number, lengths: readonly number[], input: Tensor, stream: Shared<Tensor>): Activations {
    return new StagedActivations(next, lengths, new Map([["input", new Shared(input)], ["stream", stream]]));
  }
}

/** Where a module stands; of one with several roles the first. */
interface Place {
  readonly layer: number;
  readonly role: LinearRole;
}

function placesOfModules({ architecture, config }: Decoder): Map<string, Place> {
  const places = new Map<string, Place>();
  for (let layer = 0; layer < config.layers; layer++) {
    for (const role of firstRoles(architecture, rolesOf(architecture))) {
      places.set(linearName(architecture, layer, role), { layer, role });
    }
  }
  return places;
}
