import { type Sequence, tokenWeights } from "@lora-loom/iteris";
import { answerCount, answerRows, type Reads } from "../calibrated/answer_rows.ts";
import { seededRandom } from "../calibrated/seeded_random.ts";
import type { RefineSettings } from "./parameters.ts";
import type { TaskData } from "./task_data.ts";
import type { RefineRequest } from "./request.ts";

/** Tokens that go through the model together. */
export const TOKENS_PER_PASS = 4096;

/** One sequence of a minibatch. */
export interface Member {
  readonly task: number;
  /** Its place among the task's sequences. */
  readonly index: number;
  readonly sequence: Sequence;
}

/** Sequences that go through the model together, one after the other without padding. */
export interface PackedBatch {
  readonly members: readonly Member[];
  /** w_t of each row, by what a layer reads; their sum over the whole minibatch is 1. */
  readonly weights: ReadonlyMap<Reads, Float64Array<ArrayBuffer>>;
  /** Rows of the model's output that predict a token of an answer. */
  readonly answerRows: Uint32Array<ArrayBuffer>;
  /** How much each of them counts; their sum over the whole minibatch is 1. */
  readonly answerShares: Float64Array<ArrayBuffer>;
}

/**
 * The minibatch of a step, the same for the same seed: every task's sequences are shuffled anew for each round through them, and each
 * step takes the next few.
 *
 * @param step from 1
 */
export function minibatch(
  tasks: readonly TaskData[],
  { sequences: count }: Pick<RefineSettings, "sequences">,
  seed: number,
  step: number,
): Member[] {
  return tasks.flatMap(({ sequences }, task) =>
    Array.from({ length: Math.min(count, sequences.length) }, (_, i): Member => {
      const place = (step - 1) * Math.min(count, sequences.length) + i;
      const round = Math.floor(place / sequences.length);
      const index = shuffled(
        sequences.length,
        seed + 7919 * task + 104729 * round,
      )[place % sequences.length]!;
      return { task, index, sequence: sequences[index]! };
    })
  );
}

/** 0 … n−1 in a random order (Fisher and Yates). */
function shuffled(n: number, seed: number): Uint32Array {
  const random = seededRandom(seed);
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/**
 * Weighs the tokens of a minibatch and cuts it into batches of at most `tokensPerPass` tokens, or of one longer sequence.
 *
 * @param layerReads what the model's layers read, the last one's being what its output is of
 */
export function pack(
  members: readonly Member[],
  tasks: readonly TaskData[],
  tokenWeight: number,
  tokensPerPass: number,
  layerReads: readonly Reads[],
): PackedBatch[] {
  const sequences = members.map(({ sequence }) => sequence);
  const ofTask = members.map(({ task }) => tasks[task]!.weight);
  const weighed = new Map(
    [...new Set(layerReads)].map((reads) => [reads, rowWeights(sequences, ofTask, tokenWeight, reads)]),
  );
  const outputs = layerReads.at(-1);
  const answers = sum(sequences.map((sequence, i) => ofTask[i]! * answerCount(sequence, outputs)));
  return cuts(sequences.map(({ tokens }) => tokens.length), tokensPerPass).map(([first, end]) => {
    const own = sequences.slice(first, end);
    return {
      members: members.slice(first, end),
      weights: new Map([...weighed].map(([reads, rows]) => [reads, joined(rows.slice(first, end))])),
      answerRows: answerRows(own, outputs),
      answerShares: joined(
        own.map((sequence, i) =>
          new Float64Array(answerCount(sequence, outputs)).fill(ofTask[first + i]! / answers)
        ),
      ),
    };
  });
}

/** The weights of each sequence's rows in what a layer reads, which add up to 1. */
function rowWeights(
  sequences: readonly Sequence[],
  ofTask: readonly number[],
  tokenWeight: number,
  reads: Reads,
): Float64Array<ArrayBuffer>[] {
  const plain = tokenWeights(sequences, tokenWeight, "refine.token_weight", reads);
  const weighed = plain.map((weights, i) => weights.map((weight) => weight * ofTask[i]!));
  const total = sum(weighed.map(sum));
  return weighed.map((weights) => weights.map((weight) => weight / total));
}

function joined(parts: readonly Float64Array[]): Float64Array<ArrayBuffer> {
  return Float64Array.from(parts.flatMap((part) => [...part]));
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}

/** Ranges of consecutive lengths whose sum stays within a limit, or that have one element. */
export function cuts(lengths: readonly number[], limit: number): [first: number, end: number][] {
  const ranges: [number, number][] = [];
  let first = 0, held = 0;
  lengths.forEach((length, i) => {
    if (i > first && held + length > limit) {
      ranges.push([first, i]);
      [first, held] = [i, 0];
    }
    held += length;
  });
  if (first < lengths.length) ranges.push([first, lengths.length]);
  return ranges;
}

/** The passes of a step of a refinement. */
export function batchesOf({ model, tasks, settings, seed }: RefineRequest, step: number): PackedBatch[] {
  const members = minibatch(tasks, settings, seed, step);
  return pack(members, tasks, settings.tokenWeight, TOKENS_PER_PASS, model.layerReads);
}
