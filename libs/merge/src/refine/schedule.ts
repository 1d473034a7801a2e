import type { RefineSettings } from "./parameters.ts";

/**
 * The learning rate of a step: a straight line up during the warm-up, then half a cosine down to zero after the last step.
 *
 * @param step from 1
 */
export function learningRateAt(
  step: number,
  { steps, learningRate, warmUp }: Pick<RefineSettings, "steps" | "learningRate" | "warmUp">,
): number {
  if (step <= warmUp) return learningRate * step / warmUp;
  const done = (step - warmUp - 1) / Math.max(1, steps - warmUp);
  return learningRate * 0.5 * (1 + Math.cos(Math.PI * done));
}
