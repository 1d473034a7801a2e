import type { Tensor } from "@lora-loom/tensor";
import type { Activations, BaseModel, Deltas, Stage } from "../base_model.ts";
import type { PlannedTask } from "../plan.ts";
import type { Pair } from "../statistics.ts";
import { type Chunk, chunksOf } from "./chunks.ts";
import type { SavedState, StateStore } from "./state_store.ts";

/** A chunk with the states that wait before the next stage. */
interface WaitingChunk {
  readonly chunk: Chunk;
  readonly expert: SavedState;
  /** Absent as long as the merged model's state is the expert's. */
  readonly merged: SavedState | undefined;
}

/** One batch, loaded before a stage. */
export interface LoadedPair extends Pair, Disposable {
  /** D_i^½, `[tokens]`. */
  readonly rootWeights: Tensor;
  readonly heldOut: boolean;
}

/**
 * The samples of one task on their way through the model: twice, with the task's own adapter and with the merged deltas.
 * Between stages all of it waits in the store; one chunk at a time is on the device.
 */
export class TaskStream {
  #chunks: WaitingChunk[] = [];

  private constructor(readonly task: PlannedTask, readonly model: BaseModel, readonly store: StateStore) {}

  /** Embeds the task's samples. */
  static async begin(
    task: PlannedTask,
    model: BaseModel,
    store: StateStore,
    { tokensPerChunk, holdOut }: { readonly tokensPerChunk: number; readonly holdOut: boolean },
  ): Promise<TaskStream> {
    const stream = new TaskStream(task, model, store);
    for (const chunk of chunksOf(task.sequences, tokensPerChunk, holdOut)) {
      using _embeddings = await model.hold?.(chunk.sequences);
      using activations = model.begin(chunk.sequences, chunk.answerStarts);
      stream.#chunks.push({ chunk, expert: await store.save(activations), merged: undefined });
    }
    return stream;
  }

  /** Rows of a stage that reads `reads`, all samples together. */
  rows(reads: Stage["reads"]): number {
    return this.task.tokenWeights.get(reads)!.sequences.reduce((sum, { length }) => sum + length, 0);
  }

  /** Whether the merged model has left the expert's path. */
  get diverged(): boolean {
    return this.#chunks.some(({ merged }) => merged !== undefined);
  }

  /** Number of chunks. */
  get length(): number {
    return this.#chunks.length;
  }

  /** Loads one chunk's activations before `stage`; dispose them. */
  async load(index: number, stage: Stage): Promise<LoadedPair> {
    const { chunk, expert, merged } = this.#chunks[index]!;
    const { device } = this.store;
    using owned = new DisposableStack();
    const expertActivations = owned.use(await this.#restore(expert, stage, chunk));
    const mergedActivations = merged
      ? owned.use(await this.#restore(merged, stage, chunk))
      : expertActivations;
    const { sequences, largest } = this.task.tokenWeights.get(stage.reads)!;
    const diagonal = concatenated(chunk.indices.map((sequence) => sequences[sequence]!));
    const shape = [diagonal.length];
    const areOne = diagonal.every((weight) => weight === largest);
    const weights = areOne
      ? undefined
      : owned.use(device.upload(diagonal.map((weight) => weight / largest), shape));
    const rootWeights = owned.use(device.upload(diagonal.map(Math.sqrt), shape));
    const kept = owned.move();
    return {
      expert: expertActivations,
      merged: mergedActivations,
      weights,
      rootWeights,
      heldOut: chunk.heldOut,
      [Symbol.dispose]: () => kept.dispose(),
    };
  }

  /**
   * Leads one chunk to the next stage.
   *
   * @param applied the merged deltas, of this stage and those before at least; none: the merged model stays where the expert is
   */
  async advance(index: number, stage: Stage, pair: Pair, applied: Deltas): Promise<void> {
    const { chunk, expert, merged } = this.#chunks[index]!;
    // Old states go first, so that their room in host memory is free for the new ones.
    await this.store.release(expert);
    if (merged) await this.store.release(merged);
    const nextExpert = await this.#advanced(stage, pair.expert, this.task.deltas);
    const diverged = applied.size > 0 || pair.merged !== pair.expert;
    const nextMerged = diverged ? await this.#advanced(stage, pair.merged, applied) : undefined;
    this.#chunks[index] = { chunk, expert: nextExpert, merged: nextMerged };
  }

  async #restore(state: SavedState, stage: Stage, { answerStarts }: Chunk): Promise<Activations> {
    return this.model.restore(stage, state.lengths, await this.store.load(state), answerStarts);
  }

  async #advanced(stage: Stage, at: Activations, deltas: Deltas): Promise<SavedState> {
    using next = this.model.advance(stage, at, deltas);
    return await this.store.save(next);
  }

  /** Gives the last states back. */
  async release(): Promise<void> {
    for (const { expert, merged } of this.#chunks) {
      await this.store.release(expert);
      if (merged) await this.store.release(merged);
    }
    this.#chunks = [];
  }
}

function concatenated(parts: readonly Float64Array[]): Float64Array<ArrayBuffer> {
  const whole = new Float64Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
