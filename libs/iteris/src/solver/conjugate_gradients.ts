import { add, scaleRows, type Tensor } from "@lora-loom/tensor";
import { accumulate, multiple, rowDots } from "../algebra.ts";

/** Options of {@linkcode conjugateGradients}. */
export interface ConjugateGradientOptions {
  /** Ends when every row's residual has shrunk by this factor. */
  readonly reduction: number;
  readonly mostSteps: number;
}

/**
 * Solves X G = R for rows `[m, n]` by preconditioned conjugate gradients, every row with its own step lengths.
 *
 * @param apply multiplies rows by G
 * @param precondition multiplies rows by an approximate inverse of G
 * @returns X and the steps taken; X is the best found where the steps run out or G turns out not to be positive definite
 */
export async function conjugateGradients(
  apply: (rows: Tensor) => Tensor,
  right: Tensor,
  precondition: (rows: Tensor) => Tensor,
  { reduction, mostSteps }: ConjugateGradientOptions,
): Promise<{ readonly x: Tensor; readonly steps: number }> {
  const x = right.device.zeros(right.shape);
  using residual = multiple(right, 1);
  using direction = precondition(residual);
  const target = (await rowDots(residual, residual)).map((square) => square * reduction ** 2);
  let energy = await rowDots(residual, direction);
  let steps = 0;
  for (; steps < mostSteps; steps++) {
    using image = apply(direction);
    const lengths = quotients(energy, await rowDots(direction, image));
    move(x, direction, lengths, 1);
    move(residual, image, lengths, -1);
    const squares = await rowDots(residual, residual);
    if (squares.every((square, row) => square <= target[row]! || lengths[row] === 0)) {
      return { x, steps: steps + 1 };
    }
    using preconditioned = precondition(residual);
    const next = await rowDots(residual, preconditioned);
    const ratios = quotients(next, energy);
    energy = next;
    using scaled = timesRows(direction, ratios);
    add(scaled, preconditioned, { into: direction });
  }
  return { x, steps };
}

/** Row by row, 0 where a row is done or the divisor is not positive. */
function quotients(numerators: Float64Array, divisors: Float64Array): Float64Array<ArrayBuffer> {
  return Float64Array.from(
    numerators,
    (numerator, row) => divisors[row]! > 0 && numerator > 0 ? numerator / divisors[row]! : 0,
  );
}

/** into += sign · diag(lengths) · rows. */
function move(into: Tensor, rows: Tensor, lengths: Float64Array<ArrayBuffer>, sign: number): void {
  using scaled = timesRows(rows, lengths);
  accumulate(into, scaled, sign);
}

function timesRows(rows: Tensor, factors: Float64Array<ArrayBuffer>): Tensor {
  using uploaded = rows.device.upload(factors, [factors.length]);
  return scaleRows(rows, uploaded);
}
