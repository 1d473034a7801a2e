import type { Sequence } from "../request.ts";

/** Sequences that go through the model together. */
export interface Chunk {
  /** Which of the task's sequences. */
  readonly indices: readonly number[];
  readonly sequences: readonly Uint32Array[];
  readonly answerStarts: readonly number[];
  /** Whether these samples are kept out of the fit, to choose α by. */
  readonly heldOut: boolean;
}

/** Every so many sequences one is held out. */
const HELD_OUT_EVERY = 5;

/**
 * Cuts a task's sequences into chunks of at most `tokensPerChunk` tokens (a longer sequence makes its own chunk), about alike in size, so
 * that a device's buffers serve one after the other.
 *
 * @param holdOut keep every fifth sequence apart, in chunks of its own
 */
export function chunksOf(
  sequences: readonly Sequence[],
  tokensPerChunk: number,
  holdOut: boolean,
): Chunk[] {
  const isHeldOut = (index: number) => holdOut && index % HELD_OUT_EVERY === HELD_OUT_EVERY - 1;
  const indices = sequences.map((_, index) => index);
  return [false, true].flatMap((heldOut) =>
    batches(indices.filter((index) => isHeldOut(index) === heldOut), sequences, tokensPerChunk).map((
      batch,
    ) => ({
      indices: batch,
      sequences: batch.map((index) => sequences[index]!.tokens),
      answerStarts: batch.map((index) => sequences[index]!.answerStart),
      heldOut,
    }))
  );
}

function batches(
  indices: readonly number[],
  sequences: readonly Sequence[],
  tokensPerChunk: number,
): number[][] {
  const all = indices.reduce((sum, index) => sum + sequences[index]!.tokens.length, 0);
  const evenly = Math.ceil(all / Math.ceil(all / tokensPerChunk));
  const result: number[][] = [];
  let tokens = Infinity;
  for (const index of indices) {
    const length = sequences[index]!.tokens.length;
    if (tokens + length > tokensPerChunk || tokens >= evenly) {
      result.push([]);
      tokens = 0;
    }
    result.at(-1)!.push(index);
    tokens += length;
  }
  return result;
}
