import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { block, wholeMatrix } from "../gpu/matrix_view.ts";
import { triangularSolve } from "../linalg/mod.ts";
import { defineOperation } from "../operation.ts";
import type { Tensor } from "../tensor.ts";
import type { CholeskyFactor } from "./cholesky.ts";
import { PRODUCT_KERNELS, queueProduct } from "./matrix_product.ts";
import { queueCopyRectangle } from "./rectangles.ts";
import { inverseOf, type Range } from "./triangular_blocks.ts";

/**
 * L⁻¹ of a factor, `[n, n]`, zero above the diagonal. It costs as much as the factorisation and turns each solve into one product, which
 * pays on a GPU where a few right-hand sides at a time are solved for again and again: solving by blocks then waits for one small
 * product after the other. Blocks of twice the size, from the inverses of the diagonal ones on:
 *
 *     [L₁ 0; L₂₁ L₂]⁻¹ = [L₁⁻¹ 0; −L₂⁻¹ L₂₁ L₁⁻¹  L₂⁻¹]
 */
export const invertTriangular: (factor: CholeskyFactor) => Tensor = (factor) =>
  operation(factor.lower, factor.inverses);

const operation = defineOperation<[Tensor, Tensor | undefined], Tensor>({
  name: "invertTriangular",
  kernels: PRODUCT_KERNELS,
  gpu: (device, lower, inverses) => queueInverse(device, lower, inverses!),
  cpu: computeInverse,
});

function queueInverse(device: GpuDevice, lower: Tensor, inverses: Tensor): Tensor {
  const n = lower.shape[0]!;
  const result = device.zeros([n, n]);
  const [whole, inverse] = [wholeMatrix(lower, "invertTriangular"), wholeMatrix(result, "invertTriangular")];
  const size = inverses.shape[1]!;
  for (let start = 0; start < n; start += size) {
    const range = [start, Math.min(start + size, n)] as const;
    queueCopyRectangle(device, inverseOf(inverses, range), block(inverse, range, range));
  }
  for (let half = size; half < n; half *= 2) {
    for (let start = 0; start + half < n; start += 2 * half) {
      const first: Range = [start, start + half];
      const second: Range = [start + half, Math.min(start + 2 * half, n)];
      const shape = [second[1] - second[0], half];
      // Through matrices of their own, because a dispatch cannot read one part of a buffer and write another.
      using coupled = device.empty(shape);
      using below = device.empty(shape);
      const [product, solved] = [coupled, below].map((x) => wholeMatrix(x, "invertTriangular"));
      queueProduct(device, { a: block(whole, second, first), b: block(inverse, first, first), c: product! });
      queueProduct(device, { a: block(inverse, second, second), b: product!, c: solved!, alpha: -1 });
      queueCopyRectangle(device, solved!, block(inverse, second, first));
    }
  }
  return result;
}

function computeInverse(device: CpuDevice, lower: Tensor): Tensor {
  const n = lower.shape[0]!;
  const identity = new Float64Array(n * n);
  for (let i = 0; i < n; i++) identity[i * n + i] = 1;
  return device.wrap(triangularSolve((lower as CpuTensor).floats, n, identity, n), [n, n]);
}
