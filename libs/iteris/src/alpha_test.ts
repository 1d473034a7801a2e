import { assertAlmostEquals, assertEquals } from "@std/assert";
import { denseResult, mergeToy } from "./test_support/merge_toy.ts";
import { assertRelativelyClose } from "@lora-loom/testing";
import { ALPHA_GRID } from "./solver/alpha_search.ts";
import {
  combine,
  denseDeltas,
  expertTraces,
  norm,
  solveRight,
  systemOf,
  times,
  transpose,
} from "./test_support/oracle.ts";
import { type HostTask, SMALL, toyTask, toyWeights } from "./test_support/toy_model.ts";

const toy = toyWeights({ ...SMALL, layers: 1 }, 5);
const tasks = [1, 2].map((seed) => toyTask(toy, { name: `task ${seed}`, rank: 2, samples: 13, seed }));

function part(task: HostTask, heldOut: boolean): HostTask {
  return { ...task, sequences: task.sequences.filter((_, index) => (index % 5 === 4) === heldOut) };
}

for (const lambda of ["full", "none"] as const) {
  Deno.test(`iteris() with alpha auto fits and scores every value as done by hand when λ is ${lambda}`, async () => {
    const merged = await mergeToy(toy, tasks, { iteris: { alpha: "auto", adaptiveWeights: lambda } });
    const result = await denseResult(merged);
    const everything = expertTraces(toy, tasks);
    for (const module of ["layers.0.q", "layers.0.k"]) {
      const { lambdas } = systemOf(toy, module, tasks, everything, everything, { alpha: 0, lambda });
      const curve = ALPHA_GRID.map((alpha) => ({ alpha, loss: heldOutLoss(module, alpha, lambdas) }));
      const report = merged.report.sites.find((site) => site.module === module)!;
      assertEquals(report.alphaCurve.map(({ alpha }) => alpha), [...ALPHA_GRID]);
      report.alphaCurve.forEach(({ loss }, i) => assertAlmostEquals(loss, curve[i]!.loss, 1e-8));
      const best = curve.reduce((x, y) => y.loss <= x.loss ? y : x);
      assertEquals(report.alpha, best.alpha);

      const { g, n } = systemOf(toy, module, tasks, everything, everything, { alpha: best.alpha, lambda });
      assertRelativelyClose(result.get(module)!.flat(), solveRight(n, g).flat(), 1e-8, module);
    }
  });
}

/** Fits on four fifths of the samples, with the weights of all, and measures on the rest. */
function heldOutLoss(module: string, alpha: number, lambdas: readonly number[]): number {
  // The oracle takes λ_i as the recipe's weights, and scales each part's token weights to sum to 1: undo the latter, too.
  const share = (task: HostTask, heldOut: boolean) => tokens(part(task, heldOut)) / tokens(task);
  const fit = tasks.map((task, i) => ({ ...part(task, false), weight: lambdas[i]! * share(task, false) }));
  const traces = expertTraces(toy, fit);
  const { g, n } = systemOf(toy, module, fit, traces, traces, { alpha, lambda: "none" });
  const w = solveRight(n, g);
  let loss = 0;
  let total = 0;
  tasks.map((task) => part(task, true)).forEach((task, i) => {
    const inputs = expertTraces(toy, [task])[0]!.inputs.get(module)!;
    const target = times(inputs, transpose(denseDeltas(toy, task).get(module)!));
    const factor = lambdas[i]! / tokens(tasks[i]!);
    loss += factor * norm(combine(target, -1, times(inputs, transpose(w)))) ** 2;
    total += factor * norm(target) ** 2;
  });
  return loss / total;
}

function tokens({ sequences }: HostTask): number {
  return sequences.reduce((sum, sequence) => sum + sequence.tokens.length, 0);
}

Deno.test("iterisPlus() with alpha auto reports losses relative to its own target", async () => {
  const merged = await mergeToy(toy, tasks, { plus: { alpha: "auto", rank: 9 } });
  for (const { module, alphaCurve, alpha } of merged.report.sites) {
    const best = alphaCurve.find((score) => score.alpha === alpha)!;
    for (const { loss } of alphaCurve) assertEquals(best.loss <= loss, true, module);
    assertEquals(best.loss > 0 && best.loss < 1, true, `${module}: ${best.loss}`);
  }
});
