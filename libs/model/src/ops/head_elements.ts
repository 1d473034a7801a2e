/** What kernels that work through a head, one invocation a row, load at once. */
import type { GpuDevice } from "@lora-loom/tensor";
import { grainOf } from "./grid.ts";

/**
 * Hardware wants wide loads; drivers that run invocations as SIMD lanes of a CPU load number by number anyway, and take 8 ms to compile
 * each number that an invocation loads. What they lose by the longer loops, kernels win back by working on two rows at a time.
 */
export type HeadElement = "f32" | "vec4f";

export const NUMBERS_IN: Readonly<Record<HeadElement, number>> = { f32: 1, vec4f: 4 };

/** What suits a device. */
export function elementOf(device: GpuDevice): HeadElement {
  return grainOf(device) === "invocation" ? "f32" : "vec4f";
}

/** WGSL: the sum of the numbers in a variable. */
export function sumOf(element: HeadElement, variable: string): string {
  return element === "f32" ? variable : `(${variable}.x + ${variable}.y + ${variable}.z + ${variable}.w)`;
}
