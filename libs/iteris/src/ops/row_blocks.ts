import type { GpuDevice, Tensor, TensorWindow } from "@lora-loom/tensor";

/** So many rows of f32 are a multiple of every alignment that a binding can ask for, however long they are. */
const ALIGNED_ROWS = 64;

/** Rows of a square matrix that are bound together. */
export interface RowBlock {
  /** First of the rows, and their number. */
  readonly first: number;
  readonly rows: number;
  /** These rows of a matrix `[n, n]`. */
  of(matrix: Tensor): TensorWindow;
}

/** Cuts the rows of matrices `[n, n]` in f32 into blocks that each fit a binding. */
export function rowBlocks({ limits }: GpuDevice, n: number): RowBlock[] {
  const most = Math.max(1, Math.floor(limits.maxBindingBytes / (4 * n * ALIGNED_ROWS))) * ALIGNED_ROWS;
  return Array.from({ length: Math.ceil(n / most) }, (_, i) => {
    const first = i * most;
    const rows = Math.min(most, n - first);
    return { first, rows, of: (tensor) => ({ tensor, start: first * n, end: (first + rows) * n }) };
  });
}
