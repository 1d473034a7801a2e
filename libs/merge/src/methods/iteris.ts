import { iteris as solve, type IterisOptions } from "@lora-loom/iteris";
import { mergeCalibrated } from "../calibrated/merge_calibrated.ts";
import { calibratedRank, COMMON_PARAMETERS, rankOptions } from "../calibrated/parameters.ts";
import { mergeCaptured } from "../captured/merge_captured.ts";
import { CAPTURED_PARAMETERS } from "../captured/parameters.ts";
import type { MethodOutcome, ModelJob, ModelMethod } from "./method.ts";

/** IterIS as published. */
export const iteris: ModelMethod = {
  kind: "model",
  name: "iteris",
  title: "IterIS",
  summary:
    "Solves every module for the delta that does to real inputs what each adapter does to its own, on a few unlabeled prompts of each task.",
  formula: "W = [Σ_i c_i W_i (C_i + α k_i I)] [Σ_i c_i (S_i + α n_i I)]⁻¹, c_i = λ_i w_i",
  source: "IterIS, arXiv 2411.15231 (CVPR 2025)",
  needs: { baseModel: true, calibration: true },
  captures: { parameters: CAPTURED_PARAMETERS },
  parameters: [
    ...COMMON_PARAMETERS,
    {
      name: "schedule",
      type: "choice",
      choices: ["sweep", "jacobi"],
      default: "sweep",
      help:
        "sweep: one pass, each layer solved on what the merged layers before it produce; jacobi: all layers at once, again and again, as published.",
    },
    { name: "iterations", type: "integer", minimum: 1, default: 10, help: "Passes of schedule: jacobi." },
    {
      name: "tolerance",
      type: "number",
      minimum: 0,
      default: 0,
      help: "Ends jacobi early, once no module's delta moves by more than this, relative to its norm.",
    },
    {
      name: "adaptive_weights",
      type: "choice",
      choices: ["full", "delta", "none"],
      default: "full",
      help: "λ_i: full as in the authors' code, delta as in the paper's text, none for 1.",
      formula: "λ_i = ‖W0 + W_i‖²_F / ‖X_i (W0 + W_i)ᵀ‖²_F",
    },
  ],
  outputRank: calibratedRank,
  merge: (job) => job.adapters.some(({ recipe }) => recipe.capture) ? mergeCaptured(job) : mergeOnModel(job),
};

function mergeOnModel(job: ModelJob): Promise<MethodOutcome> {
  return mergeCalibrated(job, (request, { candidate: { alpha }, job: { parameters }, journal }) => {
    const options: IterisOptions = {
      alpha,
      schedule: parameters.schedule as "sweep" | "jacobi",
      iterations: parameters.iterations as number,
      tolerance: parameters.tolerance as number,
      adaptiveWeights: parameters.adaptive_weights as "full" | "delta" | "none",
      ...rankOptions(parameters),
    };
    return solve({ ...request, journal: journal(), options });
  });
}
