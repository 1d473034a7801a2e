import { gemmFloat64 } from "../cpu/gemm.ts";
import type { CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import { fitsBinding, wholeMatrix } from "../gpu/matrix_view.ts";
import { defineOperation } from "../operation.ts";
import { aliasedOutput, matrixShape, requireF32, requireShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { cast } from "./cast.ts";
import { PRODUCT_KERNELS, queueProduct } from "./matrix_product.ts";
import { MATRIX_UNITS, type ProductPrecision } from "./matrix_units.ts";
import { chooseVariant } from "./product_table.ts";
import { PRODUCT_VARIANTS } from "./product_variants.ts";

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
  /** Where the result goes, `[m, n]`, neither A nor B; absent: a new tensor. */
  readonly into?: Tensor;
  /** `[k]`, f32: weights of the inner index, Aᵀ diag(w) B. Only with `transposeA` and without `transposeB`. */
  readonly innerWeights?: Tensor;
  /**
   * `f16` lets devices with matrix units round the operands to 11 significant bits, which is faster; sums stay in f32. Default
   * `f32`, unless both operands are stored in 16 bits anyway. Other devices compute in f32 all the same.
   */
  readonly precision?: ProductPrecision;
  /** Name of the kernel family to use in place of the one that the device's table picks; for benchmarks. */
  readonly kernel?: string;
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
  for (const operand of [a, b]) if (!is16Bit(operand)) requireF32([operand], "gemm");
  requireF32([options.into, options.innerWeights], "gemm");
  if (options.into) requireShape(options.into, [m, n], "into", "gemm");
  if (options.innerWeights) {
    requireShape(options.innerWeights, [k], "innerWeights", "gemm");
    if (!options.transposeA || options.transposeB) {
      throw new TensorError("unsupported", "innerWeights need Aᵀ B", "transpose A, not B", "gemm");
    }
  }
  return { m, n, k };
}

function is16Bit({ dtype }: Tensor): boolean {
  return dtype === "f16" || dtype === "bf16";
}

/** Names for {@linkcode GemmOptions.kernel}. */
export function kernelFamilies(): string[] {
  return [...PRODUCT_VARIANTS.keys()];
}

/**
 * Matrix product `alpha · op(A) op(B) + beta · into`, `[m, k] × [k, n] → [m, n]`, op being the transpose where asked.
 * Operands are f32, f16 or bf16, the result is f32. Accumulates in f32 (GPU) or float64 (CPU).
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`, `aliased_output`, `unsupported` for weights of another form
 */
export const gemm: (a: Tensor, b: Tensor, options?: GemmOptions) => Tensor = defineOperation<
  [Tensor, Tensor, GemmOptions?],
  Tensor
>({
  name: "gemm",
  kernels: PRODUCT_KERNELS,
  gpu(device, a, b, options = {}) {
    const { m, n, k } = sizes(a, b, options);
    const { into } = options;
    if (into && (device.sameMemory(a, into) || device.sameMemory(b, into))) throw aliasedOutput("gemm");
    const c = into ?? device.empty([m, n]);
    // Only the kernels for matrix units read 16-bit operands, and those whole.
    const { transposeA = false, transposeB = false } = options;
    const shape = { rows: m, columns: n, inner: k, transposeA, transposeB, strideA: a.shape[1]! };
    const variant = chooseVariant(device, shape, options.kernel);
    const asTheyAre = variant.name === MATRIX_UNITS &&
      [a, b, c].every((tensor) => fitsBinding(device, wholeMatrix(tensor, "gemm")));
    using left = is16Bit(a) && !asTheyAre ? cast(a, "f32") : undefined;
    using right = is16Bit(b) && !asTheyAre ? cast(b, "f32") : undefined;
    queueProduct(device, {
      a: wholeMatrix(left ?? a, "gemm"),
      b: wholeMatrix(right ?? b, "gemm"),
      c: wholeMatrix(c, "gemm"),
      transposeA: options.transposeA ?? false,
      transposeB: options.transposeB ?? false,
      alpha: options.alpha ?? 1,
      beta: into ? options.beta ?? 0 : 0,
      precision: options.precision ?? (is16Bit(a) && is16Bit(b) ? "f16" : "f32"),
      variant: options.kernel,
      weights: options.innerWeights,
    }, variant);
    return c;
  },
  cpu(device, a, b, options = {}) {
    const { m, n, k } = sizes(a, b, options);
    const c = (options.into ?? device.zeros([m, n])) as CpuTensor;
    const [left, unweighted] = [(a as CpuTensor).floats, (b as CpuTensor).floats];
    const weights = (options.innerWeights as CpuTensor | undefined)?.floats;
    const right = weights ? unweighted.map((value, i) => value * weights[Math.floor(i / n)]!) : unweighted;
    if (c.floats === unweighted || c.floats === left) throw aliasedOutput("gemm");
    gemmFloat64(left, right, c.floats, {
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
