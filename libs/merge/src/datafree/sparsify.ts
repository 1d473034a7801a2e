import type { Entries } from "./entries.ts";
import { rowTiles, tileBuffer } from "./entries.ts";
import type { EntryRandom } from "./threefry.ts";

/** Sets some entries to zero and may rescale the others. Tiles come in order, each once. */
export interface Sparsifier {
  /**
   * @param values whole rows, changed in place
   * @param start index of the first value in the row-major matrix
   */
  apply(values: Float64Array, start: number): void;
}

/** Leaves everything as it is. */
export const KEEP_ALL: Sparsifier = { apply: () => {} };

/** The upper bits of a float64's pattern that the histogram tells apart: sign, exponent and 8 bits of the fraction. */
const BIN_SHIFT = 12;
const BINS = 1 << (31 - BIN_SHIFT);

/**
 * The magnitude that the `count` largest entries reach: at least it, and how many entries of exactly this magnitude
 * belong to them. Two passes: a histogram over the leading bits, then a sort of the one bin that the limit lies in.
 *
 * @param count 1 ≤ count ≤ rows · columns
 */
export function magnitudeLimit(entries: Entries, count: number): { limit: number; ties: number } {
  const buffer = tileBuffer(entries);
  const words = new Uint32Array(buffer.buffer);
  const histogram = new Uint32Array(BINS);
  for (const [from, to] of rowTiles(entries)) {
    entries.read(from, to, buffer);
    const length = (to - from) * entries.columns;
    // The upper half of a float64 is the second word on every platform that Deno runs on.
    for (let i = 0; i < length; i++) histogram[(words[2 * i + 1]! & 0x7fffffff) >>> BIN_SHIFT]!++;
  }
  let bin = BINS - 1;
  let above = 0;
  while (above + histogram[bin]! < count) above += histogram[bin--]!;
  const candidates = new Float64Array(histogram[bin]!);
  let found = 0;
  for (const [from, to] of rowTiles(entries)) {
    entries.read(from, to, buffer);
    const length = (to - from) * entries.columns;
    for (let i = 0; i < length; i++) {
      if ((words[2 * i + 1]! & 0x7fffffff) >>> BIN_SHIFT === bin) candidates[found++] = Math.abs(buffer[i]!);
    }
  }
  candidates.sort();
  const position = candidates.length - (count - above);
  const limit = candidates[position]!;
  let firstEqual = position;
  while (firstEqual > 0 && candidates[firstEqual - 1] === limit) firstEqual--;
  let afterEqual = position;
  while (afterEqual < candidates.length && candidates[afterEqual] === limit) afterEqual++;
  return { limit, ties: afterEqual - position };
}

/**
 * Keeps the ⌊density · rows · columns⌋ entries of the largest magnitude; of equal ones the first in row-major order.
 *
 * @param density 0 < density ≤ 1
 */
export function keepLargest(entries: Entries, density: number): Sparsifier {
  const total = entries.rows * entries.columns;
  const count = Math.floor(density * total);
  if (count >= total) return KEEP_ALL;
  if (count === 0) return { apply: (values) => void values.fill(0) };
  const { limit, ties } = magnitudeLimit(entries, count);
  let left = ties;
  return {
    apply(values) {
      for (let i = 0; i < values.length; i++) {
        const magnitude = Math.abs(values[i]!);
        if (magnitude > limit) continue;
        if (magnitude === limit && left > 0) left--;
        else values[i] = 0;
      }
    },
  };
}

/** Keeps each entry with probability `density` and divides it by that, so that its expectation stays (DARE). */
export function keepAtRandom(random: EntryRandom, density: number): Sparsifier {
  if (density >= 1) return KEEP_ALL;
  return {
    apply(values, start) {
      for (let i = 0; i < values.length; i++) {
        values[i] = random.at(start + i) < density ? values[i]! / density : 0;
      }
    },
  };
}

/**
 * MAGPRUNE of DELLA (arXiv 2406.11617, §3.1): within a row, the probability of being kept grows linearly with the rank of the
 * magnitude, from `density` − `epsilon` for the smallest to `density` + `epsilon` for the largest; what is kept is divided by
 * its own probability. Equal magnitudes rank in the order of their columns.
 *
 * @param columns length of a row
 */
export function keepByMagnitude(
  random: EntryRandom,
  columns: number,
  density: number,
  epsilon: number,
): Sparsifier {
  const magnitudes = new MagnitudeRanks(columns);
  const lowest = density - epsilon;
  const step = columns > 1 ? 2 * epsilon / (columns - 1) : 0;
  return {
    apply(values, start) {
      for (let row = 0; row < values.length; row += columns) {
        magnitudes.rank(values.subarray(row, row + columns));
        for (let j = 0; j < columns; j++) {
          const probability = columns > 1 ? lowest + step * magnitudes.ranks[j]! : density;
          const kept = random.at(start + row + j) < probability;
          values[row + j] = kept ? values[row + j]! / probability : 0;
        }
      }
    },
  };
}

/** Bits of a float64's magnitude that one pass of the sort looks at, and the passes that see all 64. */
const DIGIT_BITS = 11;
const DIGITS = [0, 1].flatMap((word) => [0, 1, 2].map((digit) => ({ word, shift: digit * DIGIT_BITS })));

/**
 * For each value how many magnitudes come before its own, equal ones in the order of their places: a radix sort, since the bits of
 * positive floats are in the order of the numbers.
 */
class MagnitudeRanks {
  readonly ranks: Uint32Array;
  readonly #counts = new Uint32Array(1 << DIGIT_BITS);
  #order: Uint32Array;
  #next: Uint32Array;

  constructor(length: number) {
    this.ranks = new Uint32Array(length);
    this.#order = new Uint32Array(length);
    this.#next = new Uint32Array(length);
  }

  /** Fills `ranks`. */
  rank(values: Float64Array): void {
    const words = new Uint32Array(values.buffer, values.byteOffset, 2 * values.length);
    for (let i = 0; i < this.#order.length; i++) this.#order[i] = i;
    for (const { word, shift } of DIGITS) this.#sortBy(words, word, shift);
    for (let i = 0; i < this.#order.length; i++) this.ranks[this.#order[i]!] = i;
  }

  #sortBy(words: Uint32Array, word: number, shift: number): void {
    const order = this.#order, next = this.#next, counts = this.#counts;
    // The sign is no part of the magnitude.
    const mask = word === 1 ? 0x7fffffff : 0xffffffff;
    const last = counts.length - 1;
    counts.fill(0);
    for (let i = 0; i < order.length; i++) counts[((words[2 * i + word]! & mask) >>> shift) & last]!++;
    let sum = 0;
    for (let digit = 0; digit < counts.length; digit++) {
      const count = counts[digit]!;
      counts[digit] = sum;
      sum += count;
    }
    for (let i = 0; i < order.length; i++) {
      const place = order[i]!;
      next[counts[((words[2 * place + word]! & mask) >>> shift) & last]!++] = place;
    }
    this.#order = next;
    this.#next = order;
  }
}
