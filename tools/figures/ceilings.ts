import type { Bound, Results } from "./results.ts";

/** What a device can do at most, in TFLOP/s and GB/s. */
export interface Ceilings {
  readonly speeds: Readonly<Partial<Record<Bound, number>>>;
  /** Where they are from. */
  readonly source: string;
}

/** Products of f16 that one product of f32 takes on matrix units, and one where an operand is stored in 16 bits. */
const PARTS = { both: 3, one: 2 };

/** Ceilings that makers state, by part of the device's name. */
const KNOWN: readonly (readonly [
  name: RegExp,
  source: string,
  speeds: Record<"f32" | "f16" | "memory" | "link", number>,
])[] = [
  [/H100 80GB HBM3/, "NVIDIA's data sheet of the H100 SXM", {
    f32: 66.9,
    f16: 989.4,
    memory: 3350,
    link: 63,
  }],
  [/H200/, "NVIDIA's data sheet of the H200", { f32: 66.9, f16: 989.4, memory: 4800, link: 63 }],
];

/** The ceilings of the device of a run: stated ones where they are known, else the peaks that were measured. */
export function ceilingsOf({ device, peaks }: Results): Ceilings {
  const known = KNOWN.find(([name]) => name.test(device.name));
  if (known) {
    const [, source, speeds] = known;
    const parts = { "f32 in parts": speeds.f16 / PARTS.both, "f32 by 16 bits": speeds.f16 / PARTS.one };
    return { source, speeds: { ...speeds, ...parts } };
  }
  return {
    source: "measured in the same run",
    speeds: peaks ? { f32: peaks.f32, memory: peaks.memory } : {},
  };
}
