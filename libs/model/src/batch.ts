import type { Rows } from "./base_model.ts";
import { ModelError } from "./errors.ts";

/** Rows of a ragged batch: the tokens of all sequences together. */
export function tokenCount(lengths: readonly number[]): number {
  return lengths.reduce((sum, length) => sum + length, 0);
}

/**
 * The position of each row in its own sequence, `[tokens]`.
 *
 * @param firstOf where positions begin, by the sequence's length; default at 0
 */
export function positionsOf(
  lengths: readonly number[],
  firstOf: (length: number) => number = () => 0,
): Uint32Array<ArrayBuffer> {
  const positions = new Uint32Array(tokenCount(lengths));
  let row = 0;
  for (const length of lengths) {
    const first = firstOf(length);
    for (let position = 0; position < length; position++) positions[row++] = first + position;
  }
  return positions;
}

/**
 * What each row sees under causal attention: the first row of its sequence, and how many rows up to itself, `[tokens, 2]`.
 *
 * @param window most rows that a row sees, itself included; default all
 */
export function causalSpans(lengths: readonly number[], window = Infinity): Uint32Array<ArrayBuffer> {
  const spans = new Uint32Array(2 * tokenCount(lengths));
  let row = 0;
  for (const length of lengths) {
    const first = row;
    for (; row < first + length; row++) spans.set(windowed(first, row - first + 1, window), 2 * row);
  }
  return spans;
}

/**
 * What sees each row under causal attention: itself and the later rows of its sequence, as first and number, `[tokens, 2]`.
 *
 * @param window most rows that a row sees, itself included; default all
 */
export function causalViewers(lengths: readonly number[], window = Infinity): Uint32Array<ArrayBuffer> {
  const viewers = new Uint32Array(2 * tokenCount(lengths));
  let row = 0;
  for (const length of lengths) {
    const end = row + length;
    for (; row < end; row++) viewers.set([row, Math.min(end - row, window)], 2 * row);
  }
  return viewers;
}

/** The last `window` of `count` rows from `first` on. */
export function windowed(first: number, count: number, window = Infinity): [first: number, count: number] {
  const kept = Math.min(count, window);
  return [first + count - kept, kept];
}

/** The row of each sequence's last token. */
export function lastRows(lengths: readonly number[]): Uint32Array<ArrayBuffer> {
  let row = 0;
  return Uint32Array.from(lengths, (length) => (row += length) - 1);
}

/** The rows to select, or nothing for all of them. */
export function selectedRows(rows: Rows, lengths: readonly number[]): Uint32Array | undefined {
  if (rows === "all") return undefined;
  if (rows === "last") return lastRows(lengths);
  const count = tokenCount(lengths);
  const outside = rows.find((row) => row >= count);
  if (outside === undefined) return rows;
  throw new ModelError(
    "row_out_of_range",
    `row ${outside} was asked for, the batch has ${count} token rows`,
    "count rows over the concatenated sequences, from 0",
    "logits",
  );
}

/** The token ids of all sequences, one after the other. */
export function concatenated(sequences: readonly Uint32Array[]): Uint32Array<ArrayBuffer> {
  const tokens = new Uint32Array(sequences.reduce((sum, sequence) => sum + sequence.length, 0));
  let row = 0;
  for (const sequence of sequences) {
    tokens.set(sequence, row);
    row += sequence.length;
  }
  return tokens;
}

/**
 * Checks sequences against a model's limits.
 *
 * @param room positions to keep free after each sequence
 * @throws {ModelError} `empty_sequence`, `token_out_of_range`, `sequence_too_long`
 */
export function checkSequences(
  sequences: readonly Uint32Array[],
  { vocabularySize, maxPositions }: { readonly vocabularySize: number; readonly maxPositions: number },
  room = 0,
): void {
  if (sequences.length === 0) {
    throw new ModelError(
      "empty_sequence",
      "the batch has no sequence",
      "pass at least one sequence of token ids",
    );
  }
  sequences.forEach((sequence, index) => {
    const where = `sequence ${index}`;
    if (sequence.length === 0) {
      throw new ModelError("empty_sequence", `${where} has no token`, "leave empty sequences out", where);
    }
    if (sequence.length + room > maxPositions) {
      throw new ModelError(
        "sequence_too_long",
        `${where} needs ${sequence.length + room} positions, the model takes ${maxPositions}`,
        "shorten the text",
        where,
      );
    }
    const wrong = sequence.find((token) => token >= vocabularySize);
    if (wrong !== undefined) {
      throw new ModelError(
        "token_out_of_range",
        `${where} has token id ${wrong}, the model's vocabulary has ${vocabularySize}`,
        "use the tokenizer from the model's own folder",
        where,
      );
    }
  });
}
