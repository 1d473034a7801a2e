import { ModelError } from "./errors.ts";

/** How rotary frequencies are stretched beyond the length a model was first trained on. */
export type RopeScaling =
  | { readonly type: "default" }
  | { readonly type: "linear"; readonly factor: number }
  | {
    readonly type: "llama3";
    readonly factor: number;
    readonly lowFrequencyFactor: number;
    readonly highFrequencyFactor: number;
    readonly originalLength: number;
  }
  | {
    readonly type: "longrope";
    /** Divisor of each plane's frequency, for sequences of at most `originalLength` tokens, and for longer ones. */
    readonly shortFactors: readonly number[];
    readonly longFactors: readonly number[];
    /** Factor of cosines and sines. */
    readonly attentionFactor: number;
    readonly originalLength: number;
  };

/** Rotary position embedding: its base frequency θ and scaling. */
export interface RopeConfig {
  readonly theta: number;
  readonly scaling: RopeScaling;
  /** Rounds the frequencies to bfloat16, as `OpenModelOptions.rotaryFrequencies` tells. Default false. */
  readonly roundToBfloat16?: boolean;
}

/**
 * Radians per position of each of the `headDim / 2` planes: θ^(−2i/headDim), RoFormer (arXiv 2104.09864) §3.2.2, then
 * scaled. `llama3` is the rule of Llama 3.1: wavelengths beyond `originalLength / lowFrequencyFactor` are divided by
 * `factor`, those below `originalLength / highFrequencyFactor` kept, and those between blended. `longrope` divides each plane
 * by its own factor, another one in long sequences (LongRoPE, arXiv 2402.13753).
 *
 * @param long whether for sequences beyond `originalLength`; only `longrope` tells them apart
 */
export function rotaryFrequencies(
  rope: RopeConfig,
  headDim: number,
  long = false,
): Float64Array<ArrayBuffer> {
  const frequencies = Float64Array.from(
    { length: headDim / 2 },
    (_, plane) => scaled(rope.theta ** (-2 * plane / headDim), plane, rope.scaling, long),
  );
  return rope.roundToBfloat16 ? frequencies.map(roundedToBfloat16) : frequencies;
}

/** To the nearest bfloat16, ties to even: a float32 without its lower 16 bits. */
function roundedToBfloat16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(bits.buffer)[0]!;
}

function scaled(frequency: number, plane: number, scaling: RopeScaling, long: boolean): number {
  switch (scaling.type) {
    case "default":
      return frequency;
    case "linear":
      return frequency / scaling.factor;
    case "llama3": {
      const turns = scaling.originalLength * frequency / (2 * Math.PI);
      const { lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
      const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
      return kept * frequency + (1 - kept) * frequency / scaling.factor;
    }
    case "longrope":
      return frequency / (long ? scaling.longFactors : scaling.shortFactors)[plane]!;
  }
}

/**
 * Cosines and sines for every position: `[positions, headDim]`, a row being the cosines of all planes, then their sines.
 * Computed in float64 on the host, because WGSL's own functions lose accuracy for large angles.
 *
 * @param factor of all cosines and sines
 */
export function rotaryTable(
  frequencies: Float64Array,
  positions: number,
  factor = 1,
): Float64Array<ArrayBuffer> {
  const planes = frequencies.length;
  const table = new Float64Array(positions * 2 * planes);
  for (let position = 0; position < positions; position++) {
    const row = position * 2 * planes;
    for (let plane = 0; plane < planes; plane++) {
      const angle = position * frequencies[plane]!;
      table[row + plane] = factor * Math.cos(angle);
      table[row + planes + plane] = factor * Math.sin(angle);
    }
  }
  return table;
}

/** The refusal of a scaling rule that is not implemented. */
export function unsupportedRope(type: string, where: string): ModelError {
  return new ModelError(
    "unsupported_rope_scaling",
    `the model scales its rotary embedding by "${type}"; supported are default, linear, llama3 and longrope`,
    "use a base model with one of the supported rules",
    where,
  );
}
