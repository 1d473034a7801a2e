import type { MergeRecord } from "./record.ts";
import { escapeHtml, rangeOf, svgPlot } from "./svg.ts";

/** The loss of every step and the agreement along the way, or why there is neither. */
export function refinementSection({ refinement }: MergeRecord): string {
  if (!refinement) return "";
  const { failure, losses, state_losses, agreement, kept_step, steps_done, steps } = refinement;
  if (failure) {
    return `<h2>Refinement</h2><p>It failed, and this is the merge before it: ${
      escapeHtml(failure.message)
    }</p>`;
  }
  const positions = losses.map((_, index) => `step ${index + 1}`);
  const lossPlot = svgPlot({
    title: "Loss of each step's minibatch",
    positions,
    series: [
      { label: "loss", style: "s0", values: losses },
      { label: "hidden states alone", style: "s1", values: state_losses },
    ],
    range: [0, 1.05 * Math.max(...losses, 1e-9)],
    ends: ["first step", `step ${losses.length}`],
  });
  const agreementPlot = agreement.length < 2 ? "" : svgPlot({
    title: "Agreement with the adapters on prompts kept out",
    positions: agreement.map(({ step }) => `after step ${step}`),
    series: [{ label: "agreement", style: "s2", values: agreement.map(({ mean }) => mean) }],
    range: rangeOf(agreement.map(({ mean }) => mean), 0.1),
    ends: ["before", `step ${agreement.at(-1)!.step}`],
  });
  const kept = kept_step === 0
    ? "No step agreed better with the adapters than the merge before, which was kept."
    : `The factors after step ${kept_step} were kept.`;
  return `<h2>Refinement</h2><p>After the merge, ${steps_done} of ${steps} steps of training without labels: ` +
    `the factors of all modules were fitted to what each adapter makes of its own prompts. ${kept}</p>` +
    (losses.length > 0 ? lossPlot : "") + agreementPlot;
}
