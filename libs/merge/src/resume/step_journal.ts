import type { Journal, SolvedStage, Stage } from "@lora-loom/iteris";
import type { HostTensor, Packed } from "./packed.ts";

/** What a method that works for long keeps of its finished steps, so that an interrupted merge can go on. */
export interface StepJournal {
  /**
   * What a step gave when an earlier run of the same merge did it; else it is done now, and kept.
   *
   * @param step a name of its own within the merge, for people too
   * @param work must give the same every time: texts, numbers, token ids as `Uint32Array`, and lists and objects of these
   */
  recall<T>(step: string, work: () => Promise<T>): Promise<T>;
  /**
   * The stages of one run of a solver.
   *
   * @param solve what their names begin with, of its own within the merge
   */
  stages(solve: string): Journal;
}

/** Where the steps are. */
export interface StepStore {
  has(step: string): boolean;
  read(step: string): Promise<Packed>;
  append(step: string, record: Packed): Promise<void>;
}

/** Keeps nothing: every step is done. */
export const NO_JOURNAL: StepJournal = {
  recall: (_step, work) => work(),
  stages: () => ({
    holds: () => false,
    replay: () => Promise.reject(new Error("there is no journal")),
    record: () => Promise.resolve(),
  }),
};

/** Steps in a store. */
export class StoredSteps implements StepJournal {
  constructor(private readonly store: StepStore) {}

  async recall<T>(step: string, work: () => Promise<T>): Promise<T> {
    if (this.store.has(step)) return ((await this.store.read(step)).value as { result: T }).result;
    const result = await work();
    await this.store.append(step, { value: { result }, tensors: [] });
    return result;
  }

  stages(solve: string): Journal {
    const nameOf = (pass: number, { name }: Stage) => `${solve}pass ${pass}, ${name}`;
    return {
      holds: (pass, stage) => this.store.has(nameOf(pass, stage)),
      replay: async (pass, stage) => unpackStage(await this.store.read(nameOf(pass, stage))),
      record: (pass, stage, solved) => this.store.append(nameOf(pass, stage), packStage(solved)),
    };
  }
}

interface StageValue {
  readonly modules: readonly string[];
  readonly sites: SolvedStage["sites"];
}

/** The tensors are A and B of each module, in the order of their names. */
function packStage({ deltas, sites }: SolvedStage): Packed {
  const value: StageValue = { modules: [...deltas.keys()], sites };
  return { value, tensors: [...deltas.values()].flatMap(({ a, b }): HostTensor[] => [a, b]) };
}

function unpackStage({ value, tensors }: Packed): SolvedStage {
  const { modules, sites } = value as StageValue;
  const deltas = new Map(
    modules.map((module, index) => [module, { a: tensors[2 * index]!, b: tensors[2 * index + 1]! }]),
  );
  return { deltas, sites };
}
