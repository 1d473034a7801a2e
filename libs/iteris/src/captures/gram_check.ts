import { type Device, factorCholesky, type Tensor, TensorError } from "@lora-loom/tensor";
import { IterisError } from "../errors.ts";

type Values = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** Two entries that should be equal may differ by this part of what they can be at most. */
const ASYMMETRY = 1e-2;
/** What rounding may do to the entries of a Gram matrix that was summed or stored in half precision. */
const ROUNDING = 2 ** -10;

/**
 * Uploads XᵀX `[n, n]` after checking that it can be one: finite, symmetric, positive semidefinite, up to the rounding of a matrix that
 * was stored in half precision. Entries that differ across the diagonal are averaged, in `values` itself.
 *
 * @param where task and module, for errors
 * @throws {IterisError} `not_finite_capture`, `gram_not_symmetric`, `gram_not_positive`
 */
export async function uploadGram(device: Device, values: Values, n: number, where: string): Promise<Tensor> {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw notFiniteCapture(where, `the Gram matrix holds ${values[bad]} at element ${bad}`);
  symmetrise(values, n, where);
  await checkPositive(device, values, n, where);
  return device.upload(values, [n, n]);
}

/** @param what was found */
export function notFiniteCapture(where: string, what: string): IterisError {
  return new IterisError(
    "not_finite_capture",
    `what was captured is not finite: ${what}`,
    "record it again, in float32: values that leave the range of float16 become infinite there",
    where,
  );
}

/** |S_ij| ≤ √(S_ii S_jj): what two entries are compared with. */
function boundOf(values: Values, n: number, i: number, j: number): number {
  return Math.sqrt(values[i * n + i]! * values[j * n + j]!);
}

function symmetrise(values: Values, n: number, where: string): void {
  for (let i = 0; i < n; i++) {
    const diagonal = values[i * n + i]!;
    if (diagonal < 0) throw notPositive(where, `its diagonal holds ${diagonal} at ${i}`);
  }
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const [left, right] = [values[i * n + j]!, values[j * n + i]!];
      if (Math.abs(left - right) > ASYMMETRY * boundOf(values, n, i, j)) {
        throw new IterisError(
          "gram_not_symmetric",
          `the Gram matrix holds ${left} at [${i}, ${j}] and ${right} at [${j}, ${i}]; XᵀX is symmetric`,
          "record x.T @ x of the inputs x [rows, features], or the inputs themselves",
          where,
        );
      }
      values[i * n + j] = values[j * n + i] = (left + right) / 2;
    }
  }
}

/** Factors the matrix, scaled to a unit diagonal and moved by what rounding can have done to its smallest eigenvalue. */
async function checkPositive(device: Device, values: Values, n: number, where: string): Promise<void> {
  const scaled = values.slice();
  const scales = Float64Array.from({ length: n }, (_, i) => 1 / (Math.sqrt(values[i * n + i]!) || 1));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) scaled[i * n + j]! *= scales[i]! * scales[j]!;
    scaled[i * n + i] = (values[i * n + i]! > 0 ? 1 : 0) + ROUNDING * Math.sqrt(n);
  }
  using matrix = device.upload(scaled, [n, n]);
  try {
    (await factorCholesky(matrix))[Symbol.dispose]();
  } catch (error) {
    if (!(error instanceof TensorError && error.code === "not_positive_definite")) throw error;
    throw notPositive(where, "it has negative eigenvalues");
  }
}

function notPositive(where: string, what: string): IterisError {
  return new IterisError(
    "gram_not_positive",
    `the Gram matrix cannot be one: ${what}; XᵀX is positive semidefinite`,
    "record x.T @ x of the inputs x [rows, features] in float32, or the inputs themselves",
    where,
  );
}
