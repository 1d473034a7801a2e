/**
 * IterIS written out densely on nested arrays, straight from the formulas: the oracle of the library's tests. It shares no code
 * with the library, its linear algebra or the toy model's forward pass.
 */
import type { HostTask, ToyWeights } from "./toy_model.ts";

export type Matrix = number[][];

export function fromFlat(data: ArrayLike<number>, rows: number, columns: number): Matrix {
  return Array.from(
    { length: rows },
    (_, i) => Array.from({ length: columns }, (_, j) => data[i * columns + j]!),
  );
}

export function zeros(rows: number, columns: number): Matrix {
  return Array.from({ length: rows }, () => new Array<number>(columns).fill(0));
}

export function transpose(x: Matrix): Matrix {
  return x[0]!.map((_, j) => x.map((row) => row[j]!));
}

export function times(x: Matrix, y: Matrix): Matrix {
  const yt = transpose(y);
  return x.map((row) => yt.map((column) => row.reduce((sum, value, k) => sum + value * column[k]!, 0)));
}

export function combine(x: Matrix, factor: number, y: Matrix): Matrix {
  return x.map((row, i) => row.map((value, j) => value + factor * y[i]![j]!));
}

export function norm(x: Matrix): number {
  return Math.sqrt(x.flat().reduce((sum, value) => sum + value * value, 0));
}

/** X with X G = N, by Gauss–Jordan elimination with partial pivoting. */
export function solveRight(n: Matrix, g: Matrix): Matrix {
  const size = g.length;
  const left = transpose(g).map((row) => [...row]);
  const right = transpose(n).map((row) => [...row]);
  for (let k = 0; k < size; k++) {
    let pivot = k;
    for (let i = k; i < size; i++) if (Math.abs(left[i]![k]!) > Math.abs(left[pivot]![k]!)) pivot = i;
    [left[k], left[pivot]] = [left[pivot]!, left[k]!];
    [right[k], right[pivot]] = [right[pivot]!, right[k]!];
    for (let i = 0; i < size; i++) {
      if (i === k) continue;
      const factor = left[i]![k]! / left[k]![k]!;
      if (factor === 0) continue;
      for (let j = k; j < size; j++) left[i]![j]! -= factor * left[k]![j]!;
      right[i] = right[i]!.map((value, j) => value - factor * right[k]![j]!);
    }
  }
  return transpose(right.map((row, k) => row.map((value) => value / left[k]![k]!)));
}

/** Inputs of every module and residual streams in front of it, for one set of dense deltas. */
export interface Trace {
  readonly inputs: ReadonlyMap<string, Matrix>;
  readonly streams: ReadonlyMap<string, Matrix>;
}

/** ΔW by module, `[out, in]`. */
export type DenseDeltas = ReadonlyMap<string, Matrix>;

export function denseDeltas(toy: ToyWeights, task: HostTask): Map<string, Matrix> {
  return new Map([...task.deltas].map(([module, { rank, a, b }]) => {
    const inFeatures = module.endsWith(".o") ? toy.inner : toy.hidden;
    return [module, times(fromFlat(b, b.length / rank, rank), fromFlat(a, rank, inFeatures))];
  }));
}

export function baseWeight(toy: ToyWeights, module: string): Matrix {
  const inFeatures = module.endsWith(".o") ? toy.inner : toy.hidden;
  const weight = toy.modules.get(module)!;
  return fromFlat(weight, weight.length / inFeatures, inFeatures);
}

/** Runs the toy network sequence by sequence. */
export function trace(toy: ToyWeights, sequences: HostTask["sequences"], deltas: DenseDeltas): Trace {
  const inputs = new Map<string, Matrix>();
  const streams = new Map<string, Matrix>();
  const record = (module: string, input: Matrix, stream: Matrix) => {
    inputs.set(module, [...inputs.get(module) ?? [], ...input]);
    streams.set(module, [...streams.get(module) ?? [], ...stream]);
  };
  const apply = (module: string, x: Matrix) => {
    const delta = deltas.get(module);
    const w = delta ? combine(baseWeight(toy, module), 1, delta) : baseWeight(toy, module);
    return times(x, transpose(w));
  };
  const embedding = fromFlat(toy.embedding, toy.vocabulary, toy.hidden);
  for (const { tokens } of sequences) {
    let h = [...tokens].map((token) => embedding[token]!);
    for (let layer = 0; layer < toy.layers; layer++) {
      const x = h.map((row) => row.map(Math.tanh));
      record(`layers.${layer}.q`, x, h);
      record(`layers.${layer}.k`, x, h);
      const q = apply(`layers.${layer}.q`, x);
      const k = apply(`layers.${layer}.k`, x);
      const u = k.map((row, t) =>
        row.map((value, j) =>
          Math.tanh(value + q.slice(0, t + 1).reduce((sum, earlier) => sum + earlier[j]!, 0) / (t + 1))
        )
      );
      record(`layers.${layer}.o`, u, h);
      h = combine(h, 1, apply(`layers.${layer}.o`, u));
    }
  }
  return { inputs, streams };
}

export interface OracleOptions {
  readonly alpha: number;
  readonly lambda: "full" | "delta" | "none";
  readonly drift?: boolean;
  readonly stream?: boolean;
  readonly tokenWeight?: number;
}

/** D_i: one weight a token, all of them summing to 1. */
export function tokenWeightsOf(sequences: HostTask["sequences"], rho: number): number[] {
  const raw = sequences.flatMap(({ tokens, answerStart }) =>
    [...tokens.keys()].map((t) => t + 1 < tokens.length && t + 1 >= answerStart ? 1 : rho)
  );
  const total = raw.reduce((sum, value) => sum + value, 0);
  return raw.map((value) => value / total);
}

/** The system of one module: N + α P and G + α κ I of the formulas, from given inputs. */
export function systemOf(
  toy: ToyWeights,
  module: string,
  tasks: readonly HostTask[],
  experts: readonly Trace[],
  merged: readonly Trace[],
  { alpha, lambda, drift = false, stream = false, tokenWeight = 1 }: OracleOptions,
): { readonly g: Matrix; readonly n: Matrix; readonly lambdas: number[] } {
  const w0 = baseWeight(toy, module);
  const [out, inFeatures] = [w0.length, w0[0]!.length];
  let g = zeros(inFeatures, inFeatures);
  let n = zeros(out, inFeatures);
  const lambdas: number[] = [];
  tasks.forEach((task, i) => {
    const d = tokenWeightsOf(task.sequences, tokenWeight);
    const x = experts[i]!.inputs.get(module)!;
    const xt = merged[i]!.inputs.get(module)!;
    const wi = denseDeltas(toy, task).get(module) ?? zeros(out, inFeatures);
    const weighted = xt.map((row, t) => row.map((value) => value * d[t]!));
    const s = times(transpose(xt), weighted);
    const c = times(transpose(x), weighted);
    const ownNorm = norm(s);
    const crossNorm = norm(c);

    let lambdaI = 1;
    if (lambda !== "none") {
      const whole = lambda === "full" || !task.deltas.has(module) ? combine(w0, 1, wi) : wi;
      const output = times(x, transpose(whole)).map((row, t) => row.map((value) => value * Math.sqrt(d[t]!)));
      lambdaI = norm(whole) ** 2 / norm(output) ** 2;
    }
    lambdas.push(lambdaI);
    const ci = lambdaI * (task.weight ?? 1);

    let y = times(x, transpose(wi));
    if (drift) y = combine(y, 1, times(combine(x, -1, xt), transpose(w0)));
    if (stream && module.endsWith(".o")) {
      y = combine(y, 1, combine(experts[i]!.streams.get(module)!, -1, merged[i]!.streams.get(module)!));
    }
    n = combine(n, ci, times(transpose(y), weighted));
    n = combine(n, ci * alpha * (drift ? ownNorm : crossNorm), wi);
    g = combine(g, ci, s);
    g = g.map((row, j) => row.map((value, k) => value + (j === k ? ci * alpha * ownNorm : 0)));
  });
  return { g, n, lambdas };
}

/** One solve of every module from given inputs. */
function solveAll(
  toy: ToyWeights,
  modules: readonly string[],
  tasks: readonly HostTask[],
  experts: readonly Trace[],
  merged: readonly Trace[],
  options: OracleOptions,
): Map<string, Matrix> {
  return new Map(modules.map((module) => {
    const { n, g } = systemOf(toy, module, tasks, experts, merged, options);
    return [module, solveRight(n, g)];
  }));
}

/** The traces of all tasks under their own adapters. */
export function expertTraces(toy: ToyWeights, tasks: readonly HostTask[]): Trace[] {
  return tasks.map((task) => trace(toy, task.sequences, denseDeltas(toy, task)));
}

/** Modules that at least one task adapts. */
function adaptedModules(toy: ToyWeights, tasks: readonly HostTask[]): string[] {
  return [...toy.modules.keys()].filter((module) => tasks.some(({ deltas }) => deltas.has(module)));
}

/** All modules solved together, `iterations` times. */
export function jacobiOracle(
  toy: ToyWeights,
  tasks: readonly HostTask[],
  options: OracleOptions,
  iterations: number,
): Map<string, Matrix> {
  const experts = expertTraces(toy, tasks);
  let deltas: Map<string, Matrix> | undefined;
  for (let t = 0; t < iterations; t++) {
    const current: DenseDeltas | undefined = deltas;
    const merged = current ? tasks.map(({ sequences }) => trace(toy, sequences, current)) : experts;
    deltas = solveAll(toy, adaptedModules(toy, tasks), tasks, experts, merged, options);
  }
  return deltas!;
}

/** Modules solved one after the other in execution order, each with all earlier ones merged. */
export function sweepOracle(
  toy: ToyWeights,
  tasks: readonly HostTask[],
  options: OracleOptions,
): Map<string, Matrix> {
  const experts = expertTraces(toy, tasks);
  const deltas = new Map<string, Matrix>();
  for (let layer = 0; layer < toy.layers; layer++) {
    for (const kinds of [["q", "k"], ["o"]]) {
      const modules = kinds.map((kind) => `layers.${layer}.${kind}`);
      const merged = tasks.map(({ sequences }) => trace(toy, sequences, deltas));
      const adapted = adaptedModules(toy, tasks).filter((module) => modules.includes(module));
      for (const [module, w] of solveAll(toy, adapted, tasks, experts, merged, options)) {
        deltas.set(module, w);
      }
    }
  }
  return deltas;
}
