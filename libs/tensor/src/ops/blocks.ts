/**
 * Block-diagonal matrices. They are stored as their blocks alone, one below the other: `[rows, size]` holds square blocks of `size` along
 * the diagonal, the last of which may have fewer rows. Row i begins at column ⌊i / size⌋ · size of the matrix; where the last block has
 * fewer columns than `size`, zeros follow.
 */
import type { CpuTensor } from "../cpu/cpu_device.ts";
import { gemmFloat64 } from "../cpu/gemm.ts";
import { TensorError } from "../errors.ts";
import { block, wholeMatrix } from "../gpu/matrix_view.ts";
import { defineOperation } from "../operation.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { aliasedOutput, matrixShape, requireF32, requireShape } from "../shapes.ts";
import type { Tensor } from "../tensor.ts";
import { type Batch, type Product, PRODUCT_KERNELS, queueProduct } from "./matrix_product.ts";

/** Options of {@linkcode multiplyBlocks}. */
export interface BlockProductOptions {
  /** Factor of what `into` held. Default 0. */
  readonly beta?: number;
  /** Where the result goes, neither operand; absent: a new tensor. */
  readonly into?: Tensor;
}

/** Rows [first, end) of each block. */
export function blockRows(rows: number, size: number): [first: number, end: number][] {
  return Array.from({ length: Math.ceil(rows / size) }, (_, i) => [i * size, Math.min((i + 1) * size, rows)]);
}

/**
 * Queues the products of all blocks: those of whole blocks as a batch, whose matrices are `apart` from one another, and that of a smaller last
 * one.
 */
function queueBlocks(
  device: GpuDevice,
  rows: number,
  size: number,
  apart: Omit<Batch, "count">,
  productOf: (run: readonly [first: number, end: number]) => Product,
): void {
  const count = Math.floor(rows / size);
  if (count > 0) queueProduct(device, { ...productOf([0, size]), batch: { ...apart, count } });
  if (count * size < rows) queueProduct(device, productOf([count * size, rows]));
}

function check(blocks: Tensor, x: Tensor, { into }: BlockProductOptions) {
  const [rows, size] = matrixShape(blocks, "multiplyBlocks");
  const [inner, columns] = matrixShape(x, "multiplyBlocks");
  requireF32([blocks, x, into], "multiplyBlocks");
  if (rows !== inner) {
    throw new TensorError(
      "shape_mismatch",
      `multiplyBlocks got blocks of shape [${blocks.shape}] and a matrix of shape [${x.shape}]`,
      "pass as many rows in both",
      "multiplyBlocks",
    );
  }
  if (into) requireShape(into, x.shape, "into", "multiplyBlocks");
  return { rows, size, columns };
}

/**
 * The product of a block-diagonal matrix's transpose and a dense matrix, `Mᵀ · x + beta · into`: blocks `[rows, size]`, x `[rows, n]` →
 * `[rows, n]`. One dispatch for all whole blocks where the operands can be bound at once: the transpose, because every kernel takes that as
 * it lies.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`, `aliased_output`
 */
export const multiplyBlocks: (blocks: Tensor, x: Tensor, options?: BlockProductOptions) => Tensor =
  defineOperation<[Tensor, Tensor, BlockProductOptions?], Tensor>({
    name: "multiplyBlocks",
    kernels: PRODUCT_KERNELS,
    gpu(device, blocks, x, options = {}) {
      const { rows, size, columns } = check(blocks, x, options);
      const { into, beta = 0 } = options;
      if (into && (device.sameMemory(into, x) || device.sameMemory(into, blocks))) {
        throw aliasedOutput("multiplyBlocks");
      }
      const result = into ?? device.empty([rows, columns]);
      const [a, b, c] = [blocks, x, result].map((tensor) => wholeMatrix(tensor, "multiplyBlocks"));
      queueBlocks(device, rows, size, { a: size * size, b: size * columns, c: size * columns }, (run) => ({
        a: block(a!, run, [0, run[1] - run[0]]),
        b: block(b!, run, [0, columns]),
        c: block(c!, run, [0, columns]),
        transposeA: true,
        beta: into ? beta : 0,
      }));
      return result;
    },
    cpu(device, blocks, x, options = {}) {
      const { rows, size, columns } = check(blocks, x, options);
      const { beta = 0 } = options;
      const result = (options.into ?? device.zeros([rows, columns])) as CpuTensor;
      const [values, right] = [(blocks as CpuTensor).floats, (x as CpuTensor).floats];
      if (result.floats === values || result.floats === right) throw aliasedOutput("multiplyBlocks");
      for (const [first, end] of blockRows(rows, size)) {
        const order = end - first;
        const square = Float64Array.from(
          { length: order * order },
          (_, i) => values[(first + Math.floor(i / order)) * size + i % order]!,
        );
        gemmFloat64(
          square,
          right.subarray(first * columns, end * columns),
          result.floats.subarray(first * columns, end * columns),
          {
            m: order,
            n: columns,
            k: order,
            transposeA: true,
            transposeB: false,
            alpha: 1,
            beta: options.into ? beta : 0,
          },
        );
      }
      return result;
    },
  });

/** Options of {@linkcode gramBlocks}. */
export interface GramBlocksOptions {
  /** Columns that a block relates to one another. */
  readonly size: number;
  /** Sums that the products are added to, `[columns, size]`; absent: a new tensor. */
  readonly into?: Tensor;
}

/**
 * The blocks along the diagonal of the Gram matrix of a matrix's columns, Xᵀ X + into: `[rows, columns] → [columns, size]`.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const gramBlocks: (x: Tensor, options: GramBlocksOptions) => Tensor = defineOperation<
  [Tensor, GramBlocksOptions],
  Tensor
>({
  name: "gramBlocks",
  kernels: PRODUCT_KERNELS,
  gpu(device, x, { size, into }) {
    const [rows, columns] = matrixShape(x, "gramBlocks");
    requireF32([x, into], "gramBlocks");
    if (into) requireShape(into, [columns, size], "into", "gramBlocks");
    const result = into ?? device.zeros([columns, size]);
    const [values, sums] = [wholeMatrix(x, "gramBlocks"), wholeMatrix(result, "gramBlocks")];
    queueBlocks(device, columns, size, { a: size, b: size, c: size * size }, (run) => {
      const part = block(values, [0, rows], run);
      return { a: part, b: part, c: block(sums, run, [0, run[1] - run[0]]), transposeA: true, beta: 1 };
    });
    return result;
  },
  cpu(device, x, { size, into }) {
    const [rows, columns] = matrixShape(x, "gramBlocks");
    requireF32([x, into], "gramBlocks");
    if (into) requireShape(into, [columns, size], "into", "gramBlocks");
    const result = (into ?? device.zeros([columns, size])) as CpuTensor;
    const values = (x as CpuTensor).floats;
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < columns; i++) {
        const first = i - i % size;
        for (let j = 0; j < Math.min(size, columns - first); j++) {
          result.floats[i * size + j]! += values[row * columns + i]! * values[row * columns + first + j]!;
        }
      }
    }
    return result;
  },
});
