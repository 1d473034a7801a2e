import type { Tensor } from "@lora-loom/tensor";
import type { Activations, Deltas, ForwardOptions, Rows, Site, Stage } from "./base_model.ts";
import { selectedRows } from "./batch.ts";
import { checkDelta, checkDeltas } from "./deltas.ts";
import { ModelError } from "./errors.ts";
import { gatherRows } from "./ops/rows.ts";
import { StagedActivations } from "./staged_activations.ts";

/** What models of all families do alike: they check what they are given, and run stage by stage from tokens to logits. */
export abstract class StagedModel<S extends Stage = Stage> implements Disposable {
  readonly #sites: ReadonlyMap<string, Site>;

  constructor(readonly stages: readonly S[]) {
    this.#sites = new Map(stages.flatMap(({ sites }) => sites).map((site) => [site.module, site]));
  }

  abstract get config(): { readonly maxPositions: number };
  abstract begin(sequences: readonly Uint32Array[], answerStarts?: readonly number[]): Activations;
  abstract advance(stage: Stage, at: Activations, deltas: Deltas): Activations;
  /** Logits of final-norm outputs. */
  abstract readOut(output: Tensor): Tensor;
  abstract dispose(): void;

  get maxPositions(): number {
    return this.config.maxPositions;
  }

  forward(sequences: readonly Uint32Array[], deltas: Deltas, options: ForwardOptions = {}): Tensor {
    this.checkDeltas(deltas);
    let state = this.begin(sequences, options.answerStarts);
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

  logits(at: Activations, rows: Rows = "all"): Tensor {
    if (!(at instanceof StagedActivations) || at.next !== this.stages.length) {
      throw wrongStage("logits", "the state after the last stage", at);
    }
    const selection = selectedRows(rows, this.outputLengths(at));
    if (!selection) return this.readOut(at.input);
    using ids = at.input.device.upload(selection, [selection.length], "u32");
    using selected = gatherRows(at.input, ids);
    return this.readOut(selected);
  }

  checkDeltas(deltas: Deltas): void {
    checkDeltas(deltas, this.#sites);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Rows of each sequence after the last stage. */
  protected outputLengths({ lengths }: StagedActivations): readonly number[] {
    return lengths;
  }

  /**
   * The state, known to be the one before a stage of this model, whose modules the deltas fit.
   *
   * @throws {ModelError} `wrong_stage`, `adapter_mismatch`
   */
  protected stateBefore(stage: Stage, at: Activations, deltas: Deltas): StagedActivations {
    if (this.stages[stage.index] !== stage) throw wrongStage(stage.name, "a stage of this model", at);
    if (!(at instanceof StagedActivations) || at.next !== stage.index) {
      throw wrongStage(stage.name, `the state before ${stage.name}`, at);
    }
    for (const site of stage.sites) checkDelta(site, deltas.get(site.module));
    return at;
  }

  /** @throws {ModelError} `unknown_module` */
  protected siteOf(module: string): Site {
    const site = this.#sites.get(module);
    if (site) return site;
    throw new ModelError(
      "unknown_module",
      `the model has no adaptable module ${module}`,
      "take module names from the model's stages",
      module,
    );
  }
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
