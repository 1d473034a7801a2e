import { assertEquals } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import type { Device } from "@lora-loom/tensor";
import type { DifferentiableModel, LossGradients, TraceOptions } from "../backward/differentiable.ts";
import { FactorGradients } from "../backward/factor_gradients.ts";
import type { Delta } from "../base_model.ts";
import { disposeDeltas } from "../deltas.ts";

/** Of the factors in tests. */
export const RANK = 2;
/** Of central differences: their error is about its square. */
const STEP = 1e-5;

/** Both factors of a module, `[RANK, in]` and `[out, RANK]`. */
export interface Factor {
  readonly a: Float64Array<ArrayBuffer>;
  readonly b: Float64Array<ArrayBuffer>;
}

export type Factors = Map<string, Factor>;

/** Random factors for every module, float32 exactly, so that every device starts from the same numbers. */
export function randomFactors(opened: DifferentiableModel): Factors {
  const rounded = (count: number, seed: number) =>
    gaussians(count, seed).map((value) => Math.fround(0.3 * value));
  return new Map(
    opened.stages.flatMap(({ sites }) => sites).map(({ module, inFeatures, outFeatures }, index) => [module, {
      a: rounded(RANK * inFeatures, 100 + index),
      b: rounded(outFeatures * RANK, 200 + index),
    }]),
  );
}

/** Factors as deltas on a device. */
export function uploadFactors(device: Device, factors: Factors): Map<string, Delta> {
  return new Map(
    [...factors].map(([module, { a, b }]) => [module, {
      a: device.upload(a, [RANK, a.length / RANK]),
      b: device.upload(b, [b.length / RANK, RANK]),
    }]),
  );
}

/** What a way back shows, in host memory. */
export interface Gradients {
  readonly factors: Map<string, { readonly a: ArrayLike<number>; readonly b: ArrayLike<number> }>;
  /** At the outputs of modules, `[tokens, out]`. */
  readonly rows: Map<string, ArrayLike<number>>;
}

/** Runs a model forth and back, and checks that it keeps no tensor. */
export async function gradientsOf(
  opened: DifferentiableModel,
  device: Device,
  factors: Factors,
  sequences: readonly Uint32Array[],
  lossGradients: (device: Device) => LossGradients,
  options: TraceOptions,
): Promise<Gradients> {
  // What the model itself makes for these lengths, such as a table of angles, it keeps from the first pass on.
  const { answerStarts } = options;
  opened.forward(sequences, new Map(), answerStarts ? { answerStarts } : {}).dispose();
  const before = device.memory.bytes;
  const deltas = uploadFactors(device, factors);
  const rows = new Map<string, Promise<ArrayLike<number>>>();
  const result = new Map<string, { a: ArrayLike<number>; b: ArrayLike<number> }>();
  {
    using sums = new FactorGradients(deltas);
    using trace = opened.trace(sequences, deltas, options);
    const loss = lossGradients(device);
    trace.backward(loss, (site, input, gradient) => {
      sums.observe(site, input, gradient);
      rows.set(site.module, device.download(gradient));
    });
    loss.output?.dispose();
    loss.streams?.forEach((tensor) => tensor?.dispose());
    for (const [module, { a, b }] of sums.sums) {
      result.set(module, { a: await device.download(a), b: await device.download(b) });
    }
  }
  disposeDeltas(deltas);
  assertEquals(device.memory.bytes, before, "every tensor was given back");
  const settled = new Map<string, ArrayLike<number>>();
  for (const [module, values] of rows) settled.set(module, await values);
  return { factors: result, rows: settled };
}

/** ⟨u, v⟩ */
export function inner(u: ArrayLike<number>, v: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < u.length; i++) sum += u[i]! * v[i]!;
  return sum;
}

/** (f(step) − f(−step)) / (2 step) */
export function difference(f: (step: number) => number, step = STEP): number {
  return (f(step) - f(-step)) / (2 * step);
}

/** values + step · direction */
export function moved(
  values: Float64Array,
  direction: Float64Array,
  step: number,
): Float64Array<ArrayBuffer> {
  return Float64Array.from(values, (value, i) => value + step * direction[i]!);
}

/**
 * Every factor moved by ±step along a direction of its own.
 *
 * @param check called with the module and side, the direction, and the central difference along it of a loss of all factors
 */
export function forEachDirection(
  factors: Factors,
  lossOf: (factors: Factors) => number,
  check: (module: string, side: "a" | "b", direction: Float64Array, expected: number) => void,
  step = STEP,
): void {
  let seed = 300;
  for (const [module, factor] of factors) {
    for (const side of ["a", "b"] as const) {
      const direction = gaussians(factor[side].length, seed++);
      const expected = difference(
        (step) =>
          lossOf(new Map(factors).set(module, { ...factor, [side]: moved(factor[side], direction, step) })),
        step,
      );
      check(module, side, direction, expected);
    }
  }
}
