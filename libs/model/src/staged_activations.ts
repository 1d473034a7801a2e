import type { Tensor } from "@lora-loom/tensor";
import type { Activations, Stage } from "./base_model.ts";
import { ModelError } from "./errors.ts";
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
