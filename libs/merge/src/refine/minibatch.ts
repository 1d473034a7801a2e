import { type Sequence, tokenWeights } from "@lora-loom/iteris";
import { seededRandom } from "../calibrated/seeded_random.ts";
import type { RefineSettings } from "./parameters.ts";
import type { TaskData } from "./task_data.ts";

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
  /** w_t of each token row; their sum over the whole minibatch is 1. */
  readonly weights: Float64Array<ArrayBuffer>;
  /** Rows that predict a token of an answer. */
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

/** Weighs the tokens of a minibatch and cuts it into batches of at most `tokensPerPass` tokens, or of one longer sequence. */
export function pack(
  members: readonly Member[],
  tasks: readonly TaskData[],
  tokenWeight: number,
  tokensPerPass: number,
): PackedBatch[] {
  const plain = tokenWeights(members.map(({ sequence }) => sequence), tokenWeight, "refine.token_weight");
  const ofTask = members.map(({ task }) => tasks[task]!.weight);
  const weighed = plain.map((weights, i) => weights.map((weight) => weight * ofTask[i]!));
  const total = sum(weighed.map(sum));
  const answers = sum(members.map(({ sequence }, i) => ofTask[i]! * answerCount(sequence)));
  const batches: PackedBatch[] = [];
  for (const [first, end] of cuts(members.map(({ sequence }) => sequence.tokens.length), tokensPerPass)) {
    const own = members.slice(first, end);
    let row = 0;
    const rows: number[] = [], shares: number[] = [];
    own.forEach(({ sequence }, i) => {
      const firstRow = row + Math.max(sequence.answerStart - 1, 0);
      for (let t = 0; t < answerCount(sequence); t++) {
        rows.push(firstRow + t);
        shares.push(ofTask[first + i]! / answers);
      }
      row += sequence.tokens.length;
    });
    batches.push({
      members: own,
      weights: Float64Array.from(
        weighed.slice(first, end).flatMap((weights) => [...weights]),
        (w) => w / total,
      ),
      answerRows: Uint32Array.from(rows),
      answerShares: Float64Array.from(shares),
    });
  }
  return batches;
}

/** Positions whose next token belongs to the answer. */
export function answerCount({ tokens, answerStart }: Sequence): number {
  return Math.max(tokens.length - 1 - Math.max(answerStart - 1, 0), 0);
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
