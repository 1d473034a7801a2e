import { copy, startCholesky, type Tensor } from "@lora-loom/tensor";
import { addToDiagonal } from "../ops/add_to_diagonal.ts";
import { equilibrate } from "../ops/equilibrate.ts";
import {
  type Conditioning,
  disposeSystem,
  Factor,
  isNotPositiveDefinite,
  notPositiveDefinite,
} from "./factor.ts";

/** Shifts of the diagonal to try, in turn, when the matrix cannot be factored as it is. */
const SHIFTS = [0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2];

/**
 * Factors `gram` + `ridge`·I where the Gram matrix lives, after scaling it by powers of two to a diagonal near 1: in float64 on the CPU,
 * in f32 on a GPU, where solutions are refined, with residuals in twice that precision if the sums were as exact. Where f32 cannot
 * factor the matrix, the factor of a slightly shifted one becomes the preconditioner of conjugate gradients on the matrix itself.
 *
 * @throws {IterisError} `singular_system`
 */
export async function factorise(gram: Tensor, ridge: number, conditioning: Conditioning): Promise<Factor> {
  for (const shift of shiftsFor(conditioning)) {
    const factor = start(gram, ridge, shift, conditioning);
    if (await factor?.usable) return factor!;
    factor?.[Symbol.dispose]();
  }
  throw notPositiveDefinite(conditioning);
}

/**
 * Uses a factor before it is known whether the matrix could be factored, so that a GPU can go on meanwhile. What is made of it fails where
 * it could not, and is tried again with the next shift.
 *
 * @param use has to solve with the factor, or estimate its condition
 * @throws {IterisError} `singular_system`
 */
export async function withFactor<Result>(
  gram: Tensor,
  ridge: number,
  conditioning: Conditioning,
  use: (factor: Factor) => Promise<Result>,
): Promise<Result> {
  for (const shift of shiftsFor(conditioning)) {
    using factor = start(gram, ridge, shift, conditioning);
    if (!factor) continue;
    try {
      return await use(factor);
    } catch (error) {
      if (await factor.usable) throw error;
    }
  }
  throw notPositiveDefinite(conditioning);
}

/** Without a ridge there is none to add to. */
function shiftsFor({ regularised }: Conditioning): readonly number[] {
  return regularised ? SHIFTS : [0];
}

/** Starts to factor a matrix with a shifted diagonal; nothing where that is known to fail. */
function start(gram: Tensor, ridge: number, shift: number, conditioning: Conditioning): Factor | undefined {
  const system = equilibrate(gram, ridge);
  try {
    using shifted = copy(system.matrix);
    addToDiagonal(shifted, system.diagonal, shift);
    return new Factor(system, startCholesky(shifted, { overwrite: true }), shift, conditioning);
  } catch (error) {
    disposeSystem(system);
    if (isNotPositiveDefinite(error)) return undefined;
    throw error;
  }
}
