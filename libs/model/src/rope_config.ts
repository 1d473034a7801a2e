import * as v from "valibot";
import { invalid } from "./config_errors.ts";
import { type RopeConfig, type RopeScaling, unsupportedRope } from "./rope.ts";

const size = v.pipe(v.number(), v.integer(), v.minValue(1));
const positive = v.pipe(v.number(), v.gtValue(0));

/** Rotary scaling as `rope_parameters`, or in older files `rope_scaling`, has it. */
export const ropeSchema = v.looseObject({
  rope_type: v.optional(v.string()),
  type: v.optional(v.string()),
  rope_theta: v.optional(positive),
  factor: v.optional(positive),
  low_freq_factor: v.optional(positive),
  high_freq_factor: v.optional(positive),
  short_factor: v.optional(v.array(positive)),
  long_factor: v.optional(v.array(positive)),
  attention_factor: v.nullish(positive),
  original_max_position_embeddings: v.optional(size),
  partial_rotary_factor: v.optional(positive),
});

/** Keys of `config.json` that tell of rotary embedding. */
export interface RopeKeys {
  readonly rope_theta?: number | null | undefined;
  readonly rope_scaling?: v.InferOutput<typeof ropeSchema> | null | undefined;
  readonly rope_parameters?: v.InferOutput<typeof ropeSchema> | null | undefined;
  readonly original_max_position_embeddings?: number | null | undefined;
}

/** Older files have `rope_theta` beside `rope_scaling`, newer ones have all of it in `rope_parameters`. */
export function parseRope(raw: RopeKeys, maxPositions: number, headDim: number, where: string): RopeConfig {
  const parameters = raw.rope_parameters ?? raw.rope_scaling ?? {};
  const theta = parameters.rope_theta ?? raw.rope_theta ?? 10000;
  const originalLength = raw.original_max_position_embeddings ??
    parameters.original_max_position_embeddings ?? maxPositions;
  return { theta, scaling: parseScaling(parameters, { maxPositions, originalLength, headDim }, where) };
}

interface Lengths {
  readonly maxPositions: number;
  readonly originalLength: number;
  readonly headDim: number;
}

function parseScaling(
  raw: v.InferOutput<typeof ropeSchema>,
  { maxPositions, originalLength, headDim }: Lengths,
  where: string,
): RopeScaling {
  const type = raw.rope_type ?? raw.type ?? "default";
  const required = (key: "factor" | "low_freq_factor" | "high_freq_factor") => {
    const value = raw[key];
    if (value === undefined) throw invalid(`rotary scaling "${type}" needs ${key}`, where);
    return value;
  };
  switch (type) {
    case "default":
      return { type };
    case "linear":
      return { type, factor: required("factor") };
    case "llama3":
      return {
        type,
        factor: required("factor"),
        lowFrequencyFactor: required("low_freq_factor"),
        highFrequencyFactor: required("high_freq_factor"),
        originalLength,
      };
    // Phi-3's first files call it su.
    case "longrope":
    case "su":
      return {
        type: "longrope",
        shortFactors: planeFactors(raw, "short_factor", headDim, where),
        longFactors: planeFactors(raw, "long_factor", headDim, where),
        attentionFactor: raw.attention_factor ??
          stretch(raw.factor ?? maxPositions / originalLength, originalLength),
        originalLength,
      };
    default:
      throw unsupportedRope(type, where);
  }
}

/** √(1 + ln factor / ln originalLength), by which attention is sharpened over longer texts (arXiv 2402.13753, appendix). */
function stretch(factor: number, originalLength: number): number {
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalLength));
}

function planeFactors(
  raw: v.InferOutput<typeof ropeSchema>,
  key: "short_factor" | "long_factor",
  headDim: number,
  where: string,
): number[] {
  const factors = raw[key] ?? [];
  if (factors.length === headDim / 2) return factors;
  throw invalid(
    `rotary scaling "longrope" needs ${headDim / 2} values of ${key}, found ${factors.length}`,
    where,
  );
}
