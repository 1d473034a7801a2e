/**
 * LoRA-LEGO on explicit vectors: everything after the choice of clusters, recomputed entry by entry in float64. Handles the
 * native basis and every sign, fold, representative, reweight and scale, with dense deltas where it helps.
 */
import type { Unit } from "../decide.ts";
import type { ResolvedOptions } from "../options.ts";
import { denseDelta, type HostAdapter, inner } from "./dense_oracle.ts";

interface Vectors {
  readonly a: number[];
  readonly b: number[];
  /** What is still to be multiplied to b. */
  readonly factor: number;
}

/** The unit's vectors after folding and argmax signs. */
export function unitVectors(
  adapters: readonly HostAdapter[],
  { adapter, index }: Unit,
  options: ResolvedOptions,
): Vectors {
  const { a, b, rank, scale, weight } = adapters[adapter]!;
  const inputs = a.length / rank;
  const factor = scale * weight;
  const fold = {
    none: { a: 1, b: 1, left: factor },
    b: { a: 1, b: factor, left: 1 },
    sqrt: { a: Math.sqrt(Math.abs(factor)), b: Math.sign(factor) * Math.sqrt(Math.abs(factor)), left: 1 },
  }[options.alpha_fold];
  const row = [...a.subarray(index * inputs, (index + 1) * inputs)].map((x) => x * fold.a);
  const column = [...b].filter((_, position) => position % rank === index).map((x) => x * fold.b);
  const peak = row.reduce((largest, x) => Math.abs(x) > Math.abs(largest) ? x : largest, 0);
  const sign = options.sign === "argmax" && peak < 0 ? -1 : 1;
  return { a: row.map((x) => sign * x), b: column.map((x) => sign * x), factor: fold.left };
}

/** What clustering sees of a unit, as one explicit vector. */
export function features({ a, b }: Vectors, options: ResolvedOptions): number[] {
  const unit = (x: number[]) => options.features === "unit" ? x.map((value) => value / length(x)) : x;
  const [left, right] = [unit(a), unit(b)];
  const multiply = options.kernel === "product" || options.sign === "kernel";
  return multiply ? right.flatMap((y) => left.map((x) => x * y)) : [...left, ...right];
}

/** The merged delta, [out, in], from the clusters. */
export function explicitMerge(
  adapters: readonly HostAdapter[],
  clusters: readonly (readonly Unit[])[],
  options: ResolvedOptions,
): Float64Array<ArrayBuffer> {
  const pairs = clusters.map((cluster) => {
    const members = cluster.map((unit) => unitVectors(adapters, unit, options));
    const pair = reweighted(
      options.representative === "mean" ? mean(members) : leadingPair(members),
      members,
      options,
    );
    const factor = members.reduce((total, member) => total + member.factor, 0) / members.length;
    return { a: pair.a, b: pair.b.map((x) => x * factor) };
  });
  const [inputs, outputs] = [pairs[0]!.a.length, pairs[0]!.b.length];
  const delta = new Float64Array(inputs * outputs);
  for (const { a, b } of pairs) {
    for (let x = 0; x < delta.length; x++) delta[x]! += b[Math.floor(x / inputs)]! * a[x % inputs]!;
  }
  const scale = explicitScale(adapters, clusters.length, delta, options);
  return delta.map((x) => x * scale);
}

function mean(members: readonly Vectors[]): { a: number[]; b: number[] } {
  const average = (pick: (member: Vectors) => number[]) =>
    pick(members[0]!).map((_, i) =>
      members.reduce((total, member) => total + pick(member)[i]!, 0) / members.length
    );
  return { a: average(({ a }) => a), b: average(({ b }) => b) };
}

/** Power iteration on the dense sum of the members' deltas. */
function leadingPair(members: readonly Vectors[]): { a: number[]; b: number[] } {
  let a = members[0]!.a.map((x, i) => x + Math.sin(i));
  let b = members[0]!.b;
  for (let iteration = 0; iteration < 3000; iteration++) {
    b = combine(members, (member) => member.b, (member) => dot(member.a, a));
    b = b.map((x) => x / length(b));
    a = combine(members, (member) => member.a, (member) => dot(member.b, b));
    if (iteration < 2999) a = a.map((x) => x / length(a));
  }
  const root = Math.sqrt(length(a));
  return { a: a.map((x) => x / root), b: b.map((x) => x * root) };
}

function combine(
  members: readonly Vectors[],
  pick: (member: Vectors) => number[],
  weight: (member: Vectors) => number,
) {
  const weights = members.map(weight);
  return pick(members[0]!).map((_, i) =>
    members.reduce((total, member, m) => total + weights[m]! * pick(member)[i]!, 0)
  );
}

function reweighted(
  pair: { a: number[]; b: number[] },
  members: readonly Vectors[],
  options: ResolvedOptions,
) {
  if (options.parameter_reweight === "none") return pair;
  const norm = ({ a, b }: { a: number[]; b: number[] }) =>
    options.parameter_reweight === "inf" ? Math.max(...[...a, ...b].map(Math.abs)) : length([...a, ...b]);
  const factor = members.reduce((total, member) => total + norm(member), 0) / members.length / norm(pair);
  return { a: pair.a.map((x) => x * factor), b: pair.b.map((x) => x * factor) };
}

function explicitScale(
  adapters: readonly HostAdapter[],
  k: number,
  delta: Float64Array,
  options: ResolvedOptions,
): number {
  const pooled = adapters.reduce((total, { rank }) => total + rank, 0);
  const deltas = adapters.map(denseDelta);
  switch (options.output_scale) {
    case "none":
      return 1;
    case "sqrt(N/k)":
      return Math.sqrt(pooled / k);
    case "sqrt(r/k)":
      return Math.sqrt(pooled / adapters.length / k);
    case "frobenius":
      return deltas.reduce((total, x) => total + Math.sqrt(inner(x, x)), 0) / deltas.length /
        Math.sqrt(inner(delta, delta));
    default:
      return options.output_scale;
  }
}

function dot(x: number[], y: number[]): number {
  return x.reduce((total, value, i) => total + value * y[i]!, 0);
}

function length(x: number[]): number {
  return Math.sqrt(dot(x, x));
}
