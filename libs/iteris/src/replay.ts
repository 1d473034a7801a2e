import type { Tensor } from "@lora-loom/tensor";
import type { Delta, Deltas, Stage } from "./base_model.ts";
import { keepAdaptiveWeight } from "./expert_energies.ts";
import type { HostMatrix, SolvedStage } from "./journal.ts";
import type { SiteReport } from "./report.ts";
import type { Run } from "./run_context.ts";

/** How many stages of a pass, from the first one on, the journal makes unnecessary to solve. */
export function stagesKnown({ journal, model, plan }: Run, pass: number): number {
  if (!journal) return 0;
  const firstOpen = model.stages.find((stage) =>
    plan.sites.get(stage.index)!.length > 0 && !journal.holds(pass, stage)
  );
  return firstOpen?.index ?? model.stages.length;
}

/** What an earlier run made of a stage: its deltas go to the device, its λ_i are known again. */
export async function replayStage(
  run: Run,
  pass: number,
  stage: Stage,
): Promise<{ readonly deltas: Deltas; readonly sites: readonly SiteReport[] }> {
  const sites = run.plan.sites.get(stage.index)!;
  if (sites.length === 0) return { deltas: new Map(), sites: [] };
  const solved = await run.journal!.replay(pass, stage);
  for (const [position, site] of sites.entries()) {
    solved.sites[position]!.tasks.forEach(({ adaptiveWeight }, task) =>
      keepAdaptiveWeight(run, task, site, adaptiveWeight)
    );
  }
  const upload = ({ values, shape }: HostMatrix) => run.device.upload(values, shape);
  const deltas = new Map<string, Delta>();
  for (const [module, { a, b }] of solved.deltas) deltas.set(module, { a: upload(a), b: upload(b) });
  return { deltas, sites: solved.sites };
}

/** Hands a stage that was just solved to the journal. */
export async function recordStage(
  { journal, device }: Run,
  pass: number,
  stage: Stage,
  solved: Deltas,
  sites: readonly SiteReport[],
): Promise<void> {
  if (!journal || sites.length === 0) return;
  const download = async (tensor: Tensor): Promise<HostMatrix> => ({
    shape: [...tensor.shape],
    values: await device.download(tensor) as HostMatrix["values"],
  });
  const deltas = new Map<string, { a: HostMatrix; b: HostMatrix }>();
  for (const [module, { a, b }] of solved) {
    deltas.set(module, { a: await download(a), b: await download(b) });
  }
  const record: SolvedStage = { deltas, sites };
  await journal.record(pass, stage, record);
}
