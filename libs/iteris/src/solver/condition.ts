import { type Device, rowNorms, type Tensor } from "@lora-loom/tensor";
import { Scalars } from "../scalars.ts";

/** More would hardly change the order of magnitude. */
const STEPS = 3;

/**
 * Estimates the 2-norm condition number of a symmetric positive definite operator by power iteration on it and on its inverse.
 * A lower bound, as a rule of the right order of magnitude. Nothing is read back but the norms at the end, so the eigenvalues of
 * both have to lie far within the fourth root of what f32 holds, as those of scaled matrices do.
 *
 * @param n rows of the matrix
 * @param apply multiplies a row `[1, n]` by the matrix
 * @param solve multiplies a row by its inverse
 */
export async function estimateCondition(
  device: Device,
  n: number,
  apply: (x: Tensor) => Tensor,
  solve: (x: Tensor) => Tensor,
): Promise<number> {
  const scalars = new Scalars();
  const norms = [apply, solve].map((operator) => iteratedNorms(device, n, operator, scalars));
  await scalars.settle();
  return norms.reduce((product, { last, before }) => product * (last > 0 ? last / before : 0), 1);
}

/** Norms of the last two iterates, known once the scalars are settled. */
interface IteratedNorms {
  before: number;
  last: number;
}

function iteratedNorms(
  device: Device,
  n: number,
  operator: (x: Tensor) => Tensor,
  scalars: Scalars,
): IteratedNorms {
  const norms = { before: 1, last: 0 };
  // A fixed start without symmetry, so that it is orthogonal to no eigenvector but by accident.
  let x = device.upload(
    Float64Array.from({ length: n }, (_, i) => (1 + Math.sin(7 * i + 1)) / Math.sqrt(n)),
    [1, n],
  );
  for (let step = 1; step <= STEPS; step++) {
    using before = x;
    x = operator(before);
    if (step === STEPS - 1) scalars.add(rowNorms(x), (norm) => norms.before = norm);
    if (step === STEPS) scalars.add(rowNorms(x), (norm) => norms.last = norm);
  }
  x.dispose();
  return norms;
}
