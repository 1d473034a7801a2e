import { add, gemm, type Tensor } from "@lora-loom/tensor";
import { linearName, type LinearRole, linearShape } from "./architecture.ts";
import type {
  Activations,
  Deltas,
  ForwardOptions,
  GenerateOptions,
  Rows,
  Site,
  Stage,
} from "./base_model.ts";
import { causalSpans, checkSequences, concatenated, positionsOf, selectedRows, tokenCount } from "./batch.ts";
import type { DecoderConfig } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import { checkDelta, checkDeltas } from "./deltas.ts";
import { DecoderTrace } from "./backward/decoder_trace.ts";
import type { DifferentiableModel, Trace, TraceOptions } from "./backward/differentiable.ts";
import { ModelError } from "./errors.ts";
import { generateGreedily } from "./generate.ts";
import { gatherRows } from "./ops/rows.ts";
import { Shared } from "./shared.ts";

/** The four stages of every decoder layer: which modules run, and what the stage is called after the layer's prefix. */
const LAYER_STAGES = [
  { kind: "attention_in", name: "self_attn.qkv", roles: ["query", "key", "value"] },
  { kind: "attention_out", name: "self_attn.o", roles: ["output"] },
  { kind: "mlp_in", name: "mlp.gate_up", roles: ["gate", "up"] },
  { kind: "mlp_out", name: "mlp.down", roles: ["down"] },
] as const satisfies readonly { kind: string; name: string; roles: readonly LinearRole[] }[];

/** State before stage `next`; past the last stage, `next` is their number. */
class StagedActivations implements Activations {
  #disposed = false;

  constructor(
    readonly next: number,
    readonly lengths: readonly number[],
    readonly sharedInput: Shared<Tensor>,
    readonly sharedStream: Shared<Tensor>,
  ) {}

  get input(): Tensor {
    return this.sharedInput.value;
  }

  get stream(): Tensor {
    return this.sharedStream.value;
  }

  get tensors(): ReadonlyMap<string, Tensor> {
    return new Map([["input", this.input], ["stream", this.stream]]);
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.sharedInput[Symbol.dispose]();
    this.sharedStream[Symbol.dispose]();
  }
}

/** A Llama-like decoder: four stages a layer, [q, k, v], [o], [gate, up] and [down]. Made by `openModel`. */
export class LlamaModel implements DifferentiableModel {
  readonly stages: readonly Stage[];
  readonly #decoder: Decoder;
  readonly #sites: ReadonlyMap<
    string,
    { readonly site: Site; readonly layer: number; readonly role: LinearRole }
  >;

  constructor(decoder: Decoder) {
    this.#decoder = decoder;
    this.stages = makeStages(decoder);
    this.#sites = indexSites(decoder, this.stages);
  }

  get config(): DecoderConfig {
    return this.#decoder.config;
  }

  begin(sequences: readonly Uint32Array[]): Activations {
    checkSequences(sequences, this.config);
    const lengths = sequences.map((sequence) => sequence.length);
    const stream = this.#decoder.embed(concatenated(sequences));
    return this.#stateBefore(0, lengths, this.#firstNorm(stream, 0), new Shared(stream));
  }

  advance(stage: Stage, at: Activations, deltas: Deltas): Activations {
    const state = this.#stateOf(stage, at);
    for (const site of stage.sites) checkDelta(site, deltas.get(site.module));
    const layer = Math.floor(stage.index / LAYER_STAGES.length);
    switch (LAYER_STAGES[stage.index % LAYER_STAGES.length]!.kind) {
      case "attention_in":
        return this.#keepStream(state, this.#attend(layer, state, deltas));
      case "attention_out": {
        const stream = this.#writeStream(layer, "output", state, deltas);
        const input = this.#decoder.norm(stream, this.#decoder.weights.layer(layer).norms.mlp);
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
    const input = tensors.get("input"), stream = tensors.get("stream");
    if (!input || !stream) {
      throw new ModelError(
        "missing_tensor",
        `restore got the tensors ${[...tensors.keys()].join(", ") || "(none)"}; expected input and stream`,
        "pass all of Activations.tensors",
        stage.name,
      );
    }
    return this.#stateBefore(stage.index, lengths, input, new Shared(stream));
  }

  logits(at: Activations, rows: Rows = "all"): Tensor {
    if (!(at instanceof StagedActivations) || at.next !== this.stages.length) {
      throw wrongStage("logits", "the state after the last stage", at);
    }
    const selection = selectedRows(rows, at.lengths);
    if (!selection) return this.#decoder.logits(at.input);
    using ids = this.#decoder.device.upload(selection, [selection.length], "u32");
    using selected = gatherRows(at.input, ids);
    return this.#decoder.logits(selected);
  }

  weight(module: string): Tensor {
    const found = this.#sites.get(module);
    if (found) return this.#decoder.weights.layer(found.layer).linears[found.role].weight;
    throw new ModelError(
      "unknown_module",
      `the model has no adaptable module ${module}`,
      "take module names from the model's stages",
      module,
    );
  }

  forward(sequences: readonly Uint32Array[], deltas: Deltas, options: ForwardOptions = {}): Tensor {
    this.checkDeltas(deltas);
    let state = this.begin(sequences);
    try {
      for (const stage of this.stages) {
        options.observe?.(stage, state.input);
        const next = this.advance(stage, state, deltas);
        state[Symbol.dispose]();
        state = next;
      }
      return this.logits(state, options.rows);
    } finally {
      state[Symbol.dispose]();
    }
  }

  async generate(
    prompts: readonly Uint32Array[],
    deltas: Deltas,
    options: GenerateOptions,
  ): Promise<Uint32Array[]> {
    this.checkDeltas(deltas);
    return await generateGreedily(this.#decoder, prompts, deltas, options);
  }

  get layerCount(): number {
    return this.config.layers;
  }

  trace(sequences: readonly Uint32Array[], deltas: Deltas, options?: TraceOptions): Trace {
    checkSequences(sequences, this.config);
    this.checkDeltas(deltas);
    const sites = [...this.#sites.values()];
    return new DecoderTrace(
      this.#decoder,
      sequences,
      deltas,
      (layer, role) => sites.find((found) => found.layer === layer && found.role === role)!.site,
      options,
    );
  }

  normalise(stream: Tensor): Tensor {
    return this.#decoder.norm(stream, this.#decoder.weights.finalNorm);
  }

  readOut(output: Tensor): Tensor {
    return this.#decoder.logits(output);
  }

  readOutBackward(gradient: Tensor): Tensor {
    return gemm(gradient, this.#decoder.weights.head);
  }

  checkDeltas(deltas: Deltas): void {
    checkDeltas(deltas, new Map([...this.#sites].map(([module, { site }]) => [module, site])));
  }

  dispose(): void {
    this.#decoder[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Causal self-attention within each sequence, `[tokens, queryHeads·headDim]`. */
  #attend(layer: number, { input, lengths }: StagedActivations, deltas: Deltas): Tensor {
    const { device } = this.#decoder;
    this.#decoder.reservePositions(Math.max(...lengths));
    using positions = device.upload(positionsOf(lengths), [tokenCount(lengths)], "u32");
    using spans = device.upload(causalSpans(lengths), [tokenCount(lengths), 2], "u32");
    using queries = this.#decoder.queries(layer, input, positions, deltas);
    using keys = this.#decoder.keys(layer, input, positions, deltas);
    using values = this.#decoder.linear(layer, "value", input, deltas);
    return this.#decoder.attend(queries, keys, values, spans);
  }

  /** A new stream: the old one, which an earlier state still holds, plus the module's output. */
  #writeStream(layer: number, role: "output" | "down", state: StagedActivations, deltas: Deltas): Tensor {
    const output = this.#decoder.linear(layer, role, state.input, deltas);
    return add(state.stream, output, { into: output });
  }

  /** What a layer's first stage reads; past the last layer, the final norm. */
  #firstNorm(stream: Tensor, layer: number): Tensor {
    const { weights, config } = this.#decoder;
    return this.#decoder.norm(
      stream,
      layer < config.layers ? weights.layer(layer).norms.attention : weights.finalNorm,
    );
  }

  #keepStream(state: StagedActivations, input: Tensor): Activations {
    return this.#stateBefore(state.next + 1, state.lengths, input, state.sharedStream.hold());
  }

  #stateBefore(next: number, lengths: readonly number[], input: Tensor, stream: Shared<Tensor>): Activations {
    return new StagedActivations(next, lengths, new Shared(input), stream);
  }

  #stateOf(stage: Stage, at: Activations): StagedActivations {
    if (this.stages[stage.index] !== stage) throw wrongStage(stage.name, "a stage of this model", at);
    if (!(at instanceof StagedActivations) || at.next !== stage.index) {
      throw wrongStage(stage.name, `the state before ${stage.name}`, at);
    }
    return at;
  }
}

function makeStages({ architecture, config }: Decoder): Stage[] {
  return Array.from(
    { length: config.layers },
    (_, layer) =>
      LAYER_STAGES.map(({ name, roles }, place): Stage => ({
        index: layer * LAYER_STAGES.length + place,
        name: architecture.layerPrefix(layer) + name,
        sites: roles.map((role): Site => {
          const [outFeatures, inFeatures] = linearShape(config, role);
          const module = linearName(architecture, layer, role);
          return { module, inFeatures, outFeatures, writesStream: role === "output" || role === "down" };
        }),
      })),
  ).flat();
}

function indexSites({ config }: Decoder, stages: readonly Stage[]) {
  const sites = new Map<string, { site: Site; layer: number; role: LinearRole }>();
  for (let layer = 0; layer < config.layers; layer++) {
    LAYER_STAGES.forEach(({ roles }, place) => {
      const stage = stages[layer * LAYER_STAGES.length + place]!;
      roles.forEach((role, index) =>
        sites.set(stage.sites[index]!.module, { site: stage.sites[index]!, layer, role })
      );
    });
  }
  return sites;
}

function wrongStage(where: string, expected: string, at: Activations): ModelError {
  const found = at instanceof StagedActivations
    ? `the state before stage ${at.next}`
    : "the state of another model";
  return new ModelError(
    "wrong_stage",
    `${where} expected ${expected}, found ${found}`,
    "advance through model.stages in order",
    where,
  );
}
