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
    else elect(terms, buffers, out, rule.sign === "total", rule.unweightedVote);
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

/** A total below this part of the votes' magnitudes is a tie: what remains of it may be the rounding of float32. */
const TIE = 1e-6;

function elect(
  terms: readonly Term[],
  buffers: readonly Float64Array[],
  out: Float64Array,
  byTotal: boolean,
  unweighted: boolean,
): void {
  const weights = terms.map(({ weight }) => weight);
  for (let i = 0; i < out.length; i++) {
    let vote = 0;
    let magnitude = 0;
    for (let t = 0; t < weights.length; t++) {
      const value = unweighted ? buffers[t]![i]! : weights[t]! * buffers[t]![i]!;
      vote += byTotal ? value : Math.sign(value);
      magnitude += Math.abs(value);
    }
    const isTie = unweighted ? vote === 0 : Math.abs(vote) <= (byTotal ? TIE * magnitude : 0);
    const sign = isTie ? (unweighted ? 1 : 0) : Math.sign(vote);
    let sum = 0;
    let count = 0;
    for (let t = 0; t < weights.length; t++) {
      const weighted = weights[t]! * buffers[t]![i]!;
      if (sign === 0 || Math.sign(unweighted ? buffers[t]![i]! : weighted) !== sign) continue;
      sum += weighted;
      count++;
    }
    out[i] = count === 0 ? 0 : sum / count;
  }
}
