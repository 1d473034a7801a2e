/** More would hardly change the order of magnitude, and a step on a GPU waits for a solve and a read-back. */
const STEPS = 4;

/**
 * Estimates the 2-norm condition number of a symmetric positive definite operator by power iteration on it and on its inverse.
 * A lower bound, as a rule of the right order of magnitude.
 *
 * @param apply multiplies a vector by the matrix
 * @param solve multiplies a vector by its inverse
 */
export async function estimateCondition(
  n: number,
  apply: (x: Float64Array<ArrayBuffer>) => VectorOrPromise,
  solve: (x: Float64Array<ArrayBuffer>) => VectorOrPromise,
): Promise<number> {
  return await largestEigenvalue(n, apply) * await largestEigenvalue(n, solve);
}

type VectorOrPromise = Float64Array<ArrayBuffer> | Promise<Float64Array<ArrayBuffer>>;

async function largestEigenvalue(
  n: number,
  apply: (x: Float64Array<ArrayBuffer>) => VectorOrPromise,
): Promise<number> {
  // A fixed start without symmetry, so that it is orthogonal to no eigenvector but by accident.
  let x = normalised(Float64Array.from({ length: n }, (_, i) => 1 + Math.sin(7 * i + 1)));
  let eigenvalue = 0;
  for (let step = 0; step < STEPS; step++) {
    const image = await apply(x);
    eigenvalue = Math.sqrt(squaredNorm(image));
    if (!(eigenvalue > 0)) return eigenvalue;
    x = normalised(image);
  }
  return eigenvalue;
}

function normalised(x: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const norm = Math.sqrt(squaredNorm(x));
  return x.map((value) => value / norm);
}

function squaredNorm(x: Float64Array): number {
  let sum = 0;
  for (const value of x) sum += value * value;
  return sum;
}
