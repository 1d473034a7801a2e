import { iterisPlus as solve, type IterisPlusOptions } from "@lora-loom/iteris";
import { type Deltas, differentiable, disposeDeltas } from "@lora-loom/model";
import { mergeCalibrated, type Solve } from "../calibrated/merge_calibrated.ts";
import { measureOutputMetrics, MetricsOnDemand, once } from "../calibrated/output_metrics.ts";
import { COMMON_PARAMETERS, correctedRank, rankOptions } from "../calibrated/parameters.ts";
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
      name: "metric",
      type: "choice",
      choices: ["none", "output", "auto"],
      default: "none",
      help:
        "output: weigh errors by how much they change the adapters' answers, found by leading gradients of drawn answers back through the model. auto: merge without and with it, and keep the merge with it where that agrees with the adapters on more of the prompts kept out, by over two standard errors.",
      formula:
        "Σ_i w_i F̂_i W (S_i + α n_i I) = Σ_i w_i F̂_i (Y_iᵀ D_i X̃_i + α n_i W_i), F̂_i = (1 − γ) F_i + γ I",
    },
    {
      name: "metric_damping",
      type: "number",
      minimum: 0,
      exclusiveMinimum: true,
      maximum: 1,
      default: 0.1,
      help: "γ: how much of the identity is mixed into each metric.",
    },
    {
      name: "metric_draws",
      type: "integer",
      minimum: 1,
      default: 4,
      help: "Answers drawn for every position, each led back once.",
    },
    {
      name: "metric_temperature",
      type: "number",
      minimum: 0,
      exclusiveMinimum: true,
      default: 3,
      help: "Softens the distribution that answers are drawn from: certain answers have no gradient.",
    },
    {
      name: "metric_sweeps",
      type: "integer",
      minimum: 1,
      maximum: 5,
      default: 2,
      help:
        "Sweeps with metrics; from the second on, the adapters' metrics are averaged with those of the merge before.",
    },
    {
      name: "tune",
      type: "choice",
      choices: ["none", "agreement"],
      default: "none",
      help:
        "agreement: try a short list of alpha, token_weight and splices, and keep what agrees most with the adapters on the prompts kept out; with metric: auto each is tried without and with the metric.",
    },
  ],
  outputRank: correctedRank,
  merge: (job) => mergeCalibrated(job, solveIterisPlus),
};

/** One merge; with output metrics as many sweeps as asked for, each with metrics that know the merge of the one before. */
const solveIterisPlus: Solve = async (request, { candidate, job, session, journal }) => {
  const { parameters } = job;
  const { alpha, tokenWeight } = candidate;
  const options: IterisPlusOptions = {
    alpha,
    tokenWeight,
    drift: parameters.drift as boolean,
    stream: parameters.stream as boolean,
    metricDamping: parameters.metric_damping as number,
    ...rankOptions(parameters),
  };
  if (candidate.metric === "none") return await solve({ ...request, journal: journal(), options });
  const model = differentiable(
    session.model,
    `metric: ${parameters.metric}`,
    "set parameters.metric to none",
  );
  const measured = (merged: Deltas | undefined, stage: string) => () =>
    measureOutputMetrics(
      job.device,
      model,
      request.tasks.map(({ sequences, deltas }) => ({ sequences, deltas: merged ?? deltas })),
      {
        draws: parameters.metric_draws as number,
        temperature: parameters.metric_temperature as number,
        seed: job.seed,
        signal: job.signal,
        progress: (task) => job.progress({ stage, done: task, total: request.tasks.length }),
      },
    );
  const ofExperts = once(measured(undefined, "output metrics of the adapters"));
  let merged = await solve({
    ...request,
    journal: journal("sweep 1, "),
    options,
    metrics: new MetricsOnDemand(ofExperts),
  });
  for (let sweep = 2; sweep <= (parameters.metric_sweeps as number); sweep++) {
    const before = merged;
    try {
      const ofMerge = once(measured(before.deltas, "output metrics of the merge"));
      const average = async () => (await ofExperts()).averagedWith(await ofMerge());
      merged = await solve({
        ...request,
        journal: journal(`sweep ${sweep}, `),
        options,
        metrics: new MetricsOnDemand(once(average)),
      });
    } finally {
      disposeDeltas(before.deltas);
    }
  }
  return merged;
};
