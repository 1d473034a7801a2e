import type { Parameters } from "../methods/method.ts";
import type { ParameterSpec } from "../methods/parameters.ts";

/** What `refine` takes in a recipe. */
export const REFINE_PARAMETERS: readonly ParameterSpec[] = [
  {
    name: "steps",
    type: "integer",
    minimum: 0,
    default: 100,
    help: "Minibatches to learn from; 0 leaves the merge as it is, to the last bit.",
  },
  {
    name: "samples",
    type: "integer",
    minimum: 1,
    defaultText: "the method's, or 50",
    help: "Rows of each calibration file to use, from the first one on.",
  },
  {
    name: "splices",
    type: "integer",
    minimum: 0,
    default: 150,
    help:
      "Prompts a task made by joining halves of two calibration prompts inside their common template; the adapter answers them like the others.",
  },
  {
    name: "sequences",
    type: "integer",
    minimum: 1,
    default: 12,
    help: "Sequences of each task in a minibatch.",
  },
  {
    name: "learning_rate",
    type: "number",
    minimum: 0,
    exclusiveMinimum: true,
    default: 1e-3,
    help: "Adam's step size after the warm-up; it falls to zero along a cosine.",
  },
  {
    name: "warm_up",
    type: "integer",
    minimum: 0,
    default: 10,
    help: "Steps over which the learning rate grows to its full size.",
  },
  {
    name: "token_weight",
    type: "number",
    minimum: 0,
    maximum: 1,
    default: 0.1,
    help: "ρ: how much a token counts that predicts no part of the answer.",
  },
  {
    name: "divergence",
    type: "number",
    minimum: 0,
    default: 0.04,
    help: "Weight of the divergence between the answers' distributions, beside that of hidden states.",
  },
  {
    name: "temperature",
    type: "number",
    minimum: 0,
    exclusiveMinimum: true,
    default: 2,
    help: "Softens both distributions before they are compared.",
  },
  {
    name: "agreement_prompts",
    type: "integer",
    minimum: 0,
    defaultText: "the method's, or 100",
    help: "Prompts of each file, kept out, whose agreement decides which step is kept; 0 keeps the last one.",
  },
  {
    name: "check_every",
    type: "integer",
    minimum: 1,
    default: 25,
    help: "Steps between two measurements of agreement.",
  },
  {
    name: "patience",
    type: "integer",
    minimum: 1,
    default: 2,
    help: "Measurements without a better agreement after which the refinement stops early.",
  },
  {
    name: "max_new_tokens",
    type: "integer",
    minimum: 1,
    defaultText: "the method's, or 32",
    help: "Longest answer, in tokens, that an adapter gives to a prompt.",
  },
  {
    name: "checkpoint_every",
    type: "integer",
    minimum: 1,
    default: 25,
    help: "Steps between two checkpoints, from which an interrupted refinement goes on.",
  },
];

/** The recipe's `refine`, with every value filled in. */
export interface RefineSettings {
  readonly steps: number;
  readonly samples: number;
  readonly splices: number;
  readonly sequences: number;
  readonly learningRate: number;
  readonly warmUp: number;
  readonly tokenWeight: number;
  readonly divergence: number;
  readonly temperature: number;
  readonly agreementPrompts: number;
  readonly checkEvery: number;
  readonly patience: number;
  readonly maxNewTokens: number;
  readonly checkpointEvery: number;
}

/** Reads the settings; what a method that is calibrated itself says of its data holds here too, unless `refine` says otherwise. */
export function refineSettings(refine: Parameters, method: Parameters): RefineSettings {
  const number = (name: string, otherwise = NaN) => Number(refine[name] ?? method[name] ?? otherwise);
  const own = (name: string) => Number(refine[name]);
  return {
    steps: own("steps"),
    samples: number("samples", 50),
    splices: own("splices"),
    sequences: own("sequences"),
    learningRate: own("learning_rate"),
    warmUp: own("warm_up"),
    tokenWeight: own("token_weight"),
    divergence: own("divergence"),
    temperature: own("temperature"),
    agreementPrompts: number("agreement_prompts", 100),
    checkEvery: own("check_every"),
    patience: own("patience"),
    maxNewTokens: number("max_new_tokens", 32),
    checkpointEvery: own("checkpoint_every"),
  };
}
