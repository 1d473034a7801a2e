import type { Tensor } from "@lora-loom/tensor";
import type { Activations, Rows, Stage } from "./base_model.ts";
import { selectedRows } from "./batch.ts";
import { ModelError } from "./errors.ts";
import { gatherRows } from "./ops/rows.ts";
import { Shared } from "./shared.ts";

/** State before stage `next`; past the last stage, `next` is their number. Later states may hold on to its tensors. */
export class StagedActivations implements Activations {
  #disposed = false;

  /** @param shared all tensors, among them `input` and `stream`; it takes a hold of each over */
  constructor(
    readonly next: number,
    readonly lengths: readonly number[],
    readonly shared: ReadonlyMap<string, Shared<Tensor>>,
    readonly answerStarts?: readonly number[],
  ) {}

  get input(): Tensor {
    return this.get("input");
  }

  get stream(): Tensor {
    return this.get("stream");
  }

  get(name: string): Tensor {
    return this.shared.get(name)!.value;
  }

  /** Another hold of a tensor, for a later state. */
  hold(name: string): Shared<Tensor> {
    return this.shared.get(name)!.hold();
  }

  get tensors(): ReadonlyMap<string, Tensor> {
    return new Map([...this.shared].map(([name, { value }]) => [name, value]));
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const tensor of this.shared.values()) tensor[Symbol.dispose]();
  }
}

/**
 * The state, known to be the one before `stage` of a model with these stages.
 *
 * @throws {ModelError} `wrong_stage`
 */
export function stateBefore(stages: readonly Stage[], stage: Stage, at: Activations): StagedActivations {
  if (stages[stage.index] !== stage) throw wrongStage(stage.name, "a stage of this model", at);
  if (!(at instanceof StagedActivations) || at.next !== stage.index) {
    throw wrongStage(stage.name, `the state before ${stage.name}`, at);
  }
  return at;
}

/**
 * Logits of chosen rows, from the state after the last stage.
 *
 * @param lengths rows of each sequence
 * @param head from final-norm outputs to logits
 * @throws {ModelError} `wrong_stage`, `row_out_of_range`
 */
export function logitsOf(
  stages: readonly Stage[],
  at: Activations,
  rows: Rows,
  lengths: readonly number[],
  head: (output: Tensor) => Tensor,
): Tensor {
  if (!(at instanceof StagedActivations) || at.next !== stages.length) {
    throw wrongStage("logits", "the state after the last stage", at);
  }
  const selection = selectedRows(rows, lengths);
  if (!selection) return head(at.input);
  using ids = at.input.device.upload(selection, [selection.length], "u32");
  using selected = gatherRows(at.input, ids);
  return head(selected);
}

/** The refusal of a module that has no site. */
export function unknownModule(module: string): ModelError {
  return new ModelError(
    "unknown_module",
    `the model has no adaptable module ${module}`,
    "take module names from the model's stages",
    module,
  );
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

/**
 * Tensors of a saved state, as the holds of a new one.
 *
 * @throws {ModelError} `missing_tensor`
 */
export function takenOver(
  stage: Stage,
  tensors: ReadonlyMap<string, Tensor>,
  names: readonly string[],
): Map<string, Shared<Tensor>> {
  if (names.every((name) => tensors.has(name))) {
    return new Map(names.map((name) => [name, new Shared(tensors.get(name)!)]));
  }
  throw new ModelError(
    "missing_tensor",
    `restore got the tensors ${[...tensors.keys()].join(", ") || "(none)"}; expected ${names.join(", ")}`,
    "pass all of Activations.tensors",
    stage.name,
  );
}
