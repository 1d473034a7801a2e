import { iterisPlus as solve, type IterisPlusOptions } from "@lora-loom/iteris";
import { mergeCalibrated } from "../calibrated/merge_calibrated.ts";
import { calibratedRank, COMMON_PARAMETERS, rankOptions } from "../calibrated/parameters.ts";
import type { ModelMethod } from "./method.ts";

/** IterIS with targets that repair what earlier layers changed. */
export const iterisPlus: ModelMethod = {
  kind: "model",
  name: "iteris+",
  title: "IterIS+",
  summary:
    "IterIS in one forward-only sweep whose targets also undo what the merged layers before changed; every task counts alike. The one to take when the base model and a few prompts are at hand.",
  formula:
    "W = [Σ_i w_i (Y_iᵀ D_i X̃_i + α n_i W_i)] [Σ_i w_i (S_i + α n_i I)]⁻¹, Y_i = X_i (W0 + W_i)ᵀ − X̃_i W0ᵀ [+ H_i − H̃_i]",
  source: "this project, after IterIS (arXiv 2411.15231) and Chain of Merges (arXiv 2508.21421)",
  needs: { baseModel: true, calibration: true },
  parameters: [
    ...COMMON_PARAMETERS,
    {
      name: "token_weight",
      type: "number",
      minimum: 0,
      maximum: 1,
      default: 1,
      help: "ρ: how much a token counts that predicts no part of the answer.",
      formula: "D_i = diag(w), w_t = 1 at answer positions, ρ elsewhere, Σ_t w_t = 1",
    },
    {
      name: "drift",
      type: "boolean",
      default: true,
      help: "Also correct what earlier merged layers changed in a module's input.",
      formula: "Y_i includes (X_i − X̃_i) W0ᵀ",
    },
    {
      name: "stream",
      type: "boolean",
      default: true,
      help: "Let the modules that write the residual stream also correct what is wrong in it.",
      formula: "Y_i includes H_i − H̃_i",
    },
    {
      name: "splices",
      type: "integer",
      minimum: 0,
      default: 0,
      help:
        "Prompts a task made by joining halves of two calibration prompts inside their common template; the adapter answers them like the others.",
    },
    {
      name: "tune",
      type: "choice",
      choices: ["none", "agreement"],
      default: "none",
      help:
        "agreement: try a short list of alpha, token_weight and splices, and keep what agrees most with the adapters on the prompts kept out.",
    },
  ],
  outputRank: calibratedRank,
  merge: (job) =>
    mergeCalibrated(job, (request, { alpha, tokenWeight }, parameters) => {
      const options: IterisPlusOptions = {
        alpha,
        tokenWeight,
        drift: parameters.drift as boolean,
        stream: parameters.stream as boolean,
        ...rankOptions(parameters),
      };
      return solve({ ...request, options });
    }),
};
