import { type Entries, rowTiles, tileBuffer } from "./entries.ts";
import type { Sparsifier } from "./sparsify.ts";

/** One matrix that takes part in an elementwise merge. */
export interface Term {
  readonly entries: Entries;
  readonly sparsifier: Sparsifier;
  readonly weight: number;
}

/** How the entries at one place become one. */
export type FuseRule =
  /** Σ w x. */
  | { readonly rule: "sum" }
  /** TIES: elect a sign, then average the weighted entries that have it. */
  | {
    readonly rule: "elect";
    /** `total`: the sign of the sum of the entries; `frequency`: the sign that more entries have. */
    readonly sign: "total" | "frequency";
    /**
     * Elect over the entries without their weights, and let a tie elect plus, as PEFT does. Otherwise the weighted
     * entries vote, and where no sign wins, but for rounding, the result is zero.
     */
    readonly unweightedVote: boolean;
    /** What of a total is rounding, relative to the votes' magnitudes; default {@linkcode FLOAT64_TIE}. */
    readonly tie?: number;
  };

/**
 * Merges matrices entry by entry and hands out the result in tiles of whole rows.
 *
 * @param terms of equal shape, at least one
 * @param take gets rows from `from` on; the array is used again afterwards
 */
export function fuse(
  terms: readonly Term[],
  rule: FuseRule,
  take: (values: Float64Array, from: number) => void,
): void {
  const shape = terms[0]!.entries;
  const buffers = terms.map(() => tileBuffer(shape));
  const result = tileBuffer(shape);
  for (const [from, to] of rowTiles(shape)) {
    const length = (to - from) * shape.columns;
    terms.forEach(({ entries, sparsifier }, t) => {
      entries.read(from, to, buffers[t]!);
      sparsifier.apply(buffers[t]!.subarray(0, length), from * shape.columns);
    });
    const out = result.subarray(0, length);
    if (rule.rule === "sum") addUp(terms, buffers, out);
    else elect(terms, buffers, out, rule);
    take(out, from);
  }
}

function addUp(terms: readonly Term[], buffers: readonly Float64Array[], out: Float64Array): void {
  out.fill(0);
  terms.forEach(({ weight }, t) => {
    const values = buffers[t]!;
    for (let i = 0; i < out.length; i++) out[i]! += weight * values[i]!;
  });
}

/** A total below this part of the votes' magnitudes is the rounding of float64 arithmetic, so a tie. */
const FLOAT64_TIE = 1e-12;

function elect(
  terms: readonly Term[],
  buffers: readonly Float64Array[],
  out: Float64Array,
  { sign: method, unweightedVote: unweighted, tie = FLOAT64_TIE }: Extract<FuseRule, { rule: "elect" }>,
): void {
  const votes = new Float64Array(out.length);
  const magnitudes = new Float64Array(out.length);
  terms.forEach(({ weight }, t) => {
    const factor = unweighted ? 1 : weight;
    if (method === "total") countTotal(buffers[t]!, factor, votes, magnitudes);
    else countSigns(buffers[t]!, factor, votes);
  });
  for (let i = 0; i < votes.length; i++) {
    const isTie = unweighted ? votes[i] === 0 : Math.abs(votes[i]!) <= tie * magnitudes[i]!;
    votes[i] = isTie ? (unweighted ? 1 : 0) : Math.sign(votes[i]!);
  }
  averageElected(terms, buffers, votes, unweighted, out);
}

function countTotal(
  values: Float64Array,
  factor: number,
  votes: Float64Array,
  magnitudes: Float64Array,
): void {
  for (let i = 0; i < votes.length; i++) {
    const value = factor * values[i]!;
    votes[i]! += value;
    magnitudes[i]! += Math.abs(value);
  }
}

function countSigns(values: Float64Array, factor: number, votes: Float64Array): void {
  for (let i = 0; i < votes.length; i++) votes[i]! += Math.sign(factor * values[i]!);
}

/** The mean of the weighted entries whose sign (that of the vote they cast) was elected. */
function averageElected(
  terms: readonly Term[],
  buffers: readonly Float64Array[],
  elected: Float64Array,
  unweighted: boolean,
  out: Float64Array,
): void {
  const counts = new Uint16Array(out.length);
  out.fill(0);
  terms.forEach(({ weight }, t) => {
    const values = buffers[t]!;
    const factor = unweighted ? 1 : weight;
    for (let i = 0; i < out.length; i++) {
      if (factor * values[i]! * elected[i]! <= 0) continue;
      out[i]! += weight * values[i]!;
      counts[i]!++;
    }
  });
  for (let i = 0; i < out.length; i++) if (counts[i]! > 1) out[i]! /= counts[i]!;
}
