import type { Kernel } from "../gpu/kernel.ts";
import { isVec4Aligned } from "../gpu/matrix_view.ts";
import {
  gemmMatrixUnits,
  type MatrixUnitKernel,
  type MatrixUnitShape,
} from "../kernels/gemm_matrix_units.ts";
import type { Product } from "./matrix_product.ts";
import type { ProductPrecision } from "./matrix_units.ts";

/** The block of C of a workgroup: `wide` where there are enough of them to keep a large GPU busy, else `square`. */
type BlockSize = "wide" | "square";

/** Which operands are split in two parts, those that 11 bits do not hold. */
export type Split = "both" | "left" | "none";

const SUBGROUPS = { subgroupRows: 2, subgroupColumns: 4 };
const WIDE = { rows: 128, columns: 256, ...SUBGROUPS };
const SQUARE = { rows: 128, columns: 128, ...SUBGROUPS };
const SHAPES: Readonly<Record<Split, Readonly<Record<BlockSize, Omit<MatrixUnitShape, "vec4">>>>> = {
  both: {
    wide: { ...WIDE, chunks: 1, partsA: 2, partsB: 2 },
    square: { ...SQUARE, chunks: 2, partsA: 2, partsB: 2 },
  },
  left: {
    wide: { ...WIDE, chunks: 2, partsA: 2, partsB: 1 },
    square: { ...SQUARE, chunks: 2, partsA: 2, partsB: 1 },
  },
  none: {
    wide: { ...WIDE, chunks: 2, partsA: 1, partsB: 1 },
    square: { ...SQUARE, chunks: 4, partsA: 1, partsB: 1 },
  },
};

interface Variants {
  readonly vec4: MatrixUnitKernel;
  readonly scalar: MatrixUnitKernel;
}

function variants(shape: Omit<MatrixUnitShape, "vec4">): Variants {
  return {
    vec4: gemmMatrixUnits({ ...shape, vec4: true }),
    scalar: gemmMatrixUnits({ ...shape, vec4: false }),
  };
}

const kernelsOf = (split: Split): Readonly<Record<BlockSize, Variants>> => ({
  wide: variants(SHAPES[split].wide),
  square: variants(SHAPES[split].square),
});
const KERNELS: Readonly<Record<Split, Readonly<Record<BlockSize, Variants>>>> = {
  both: kernelsOf("both"),
  left: kernelsOf("left"),
  none: kernelsOf("none"),
};

/** Those that take drivers longest to compile, in the form that aligned matrices take. */
export const LONG_MATRIX_UNIT_KERNELS: readonly Kernel[] = Object.values(KERNELS).flatMap((sizes) =>
  Object.values(sizes).map(({ vec4 }) => vec4.kernel)
);

/** All of them, for the registry. */
export const UNIT_KERNELS: readonly Kernel[] = Object.values(KERNELS).flatMap((sizes) =>
  Object.values(sizes).flatMap(({ vec4, scalar }) => [vec4.kernel, scalar.kernel])
);

/**
 * Inner length that the matrix units sum before the sum is added to C. They round towards zero, three times for every 16 of it, so
 * the error grows with this length; at 512 it is that of sums in plain f32.
 */
export const RUN: Readonly<Record<ProductPrecision, number>> = { f32: 512, f16: 2 ** 16 };

/** Workgroups that keep the largest GPUs with such units busy. */
export const BUSY = 132;

/** Time of a wide block, with twice the work of a square one, in units of that one's, as measured. */
const WIDE_BLOCK_COST = 1.8;

/** Workgroups that have something to do. */
function countBlocks(
  { c, lowerOnly = false }: Pick<Product, "c" | "lowerOnly">,
  { rows, columns }: Omit<MatrixUnitShape, "vec4">,
): number {
  const [tileRows, tileColumns] = [Math.ceil(c.rows / rows), Math.ceil(c.columns / columns)];
  if (!lowerOnly) return tileRows * tileColumns;
  return Array.from(
    { length: tileRows },
    (_, i) => Math.min(tileColumns, Math.ceil((i + 1) * rows / columns)),
  )
    .reduce((sum, count) => sum + count, 0);
}

/** Which blocks take fewer rounds of all workgroups that run at once, weighted with what a round costs. */
function cheaperBlocks(product: Pick<Product, "c" | "lowerOnly">, split: Split): BlockSize {
  const shapes = SHAPES[split];
  const cost = (size: BlockSize, perBlock: number) =>
    Math.ceil(countBlocks(product, shapes[size]) / BUSY) * perBlock;
  return cost("wide", WIDE_BLOCK_COST) < cost("square", 1) ? "wide" : "square";
}

/** The kernel for a product. */
export function unitKernelFor(product: Pick<Product, "c" | "lowerOnly">, split: Split): MatrixUnitKernel {
  return KERNELS[split][cheaperBlocks(product, split)][isVec4Aligned(product.c) ? "vec4" : "scalar"];
}
