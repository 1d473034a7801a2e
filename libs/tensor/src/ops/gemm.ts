import { gemmFloat64 } from "../cpu/gemm.ts";
import type { CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import { defineOperation } from "../operation.ts";
import { matrixShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";

/** Options of {@linkcode gemm}. */
export interface GemmOptions {
  /** Use Aᵀ. Default false. */
  readonly transposeA?: boolean;
  /** Use Bᵀ. Default false. */
  readonly transposeB?: boolean;
  /** Factor of the product. Default 1. */
  readonly alpha?: number;
  /** Factor of what `into` held. Default 0. */
  readonly beta?: number;
  /** Where the result goes, `[m, n]`; absent: a new tensor. */
  readonly into?: Tensor;
}

function sizes(a: Tensor, b: Tensor, options: GemmOptions) {
  const [aRows, aColumns] = matrixShape(a, "gemm");
  const [bRows, bColumns] = matrixShape(b, "gemm");
  const [m, k] = options.transposeA ? [aColumns, aRows] : [aRows, aColumns];
  const [inner, n] = options.transposeB ? [bColumns, bRows] : [bRows, bColumns];
  if (k !== inner) {
    throw new TensorError(
      "shape_mismatch",
      `gemm got inner sizes ${k} and ${inner} from shapes [${a.shape}] and [${b.shape}]`,
      "check the shapes and the transposes",
      "gemm",
    );
  }
  return { m, n, k };
}

/**
 * Matrix product `alpha · op(A) op(B) + beta · into`, `[m, k] × [k, n] → [m, n]`, op being the transpose where asked.
 * Accumulates in f32 (GPU) or float64 (CPU).
 *
 * @throws {TensorError} `shape_mismatch` when the inner sizes differ
 */
export const gemm: (a: Tensor, b: Tensor, options?: GemmOptions) => Tensor = defineOperation<[Tensor, Tensor, GemmOptions?], Tensor>({
  name: "gemm",
  kernels: [],
  gpu() {
    throw new Error("unreachable");
  },
  cpu(device, a, b, options = {}) {
    const { m, n, k } = sizes(a, b, options);
    const c = (options.into ?? device.zeros([m, n])) as CpuTensor;
    gemmFloat64((a as CpuTensor).floats, (b as CpuTensor).floats, c.floats, {
      m,
      n,
      k,
      transposeA: options.transposeA ?? false,
      transposeB: options.transposeB ?? false,
      alpha: options.alpha ?? 1,
      beta: options.into ? options.beta ?? 0 : 0,
    });
    return c;
  },
});
