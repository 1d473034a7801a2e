/** Cholesky factorisation on hardware: few, large dispatches, each of which costs a GPU's host as much as a small product costs the GPU. */
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import type { Kernel } from "../gpu/kernel.ts";
import {
  block,
  forEachRowWindow,
  isVec4Aligned,
  type MatrixView,
  wholeMatrix,
  windowOf,
} from "../gpu/matrix_view.ts";
import {
  CHOLESKY_FACTOR_BLOCK,
  INVERSE_COLUMNS,
  INVERT_TRIANGULAR_BLOCK,
  WIDE_BLOCK,
} from "../kernels/cholesky_block.ts";
import { CHOLESKY_ROW_BOUNDS, choleskyPanel, type PanelForm } from "../kernels/cholesky_panel.ts";
import { PACKED_K, PACKED_ROWS } from "../kernels/pack_halves.ts";
import type { Tensor } from "../tensor.ts";
import { queueProduct } from "./matrix_product.ts";
import { offersMatrixUnits } from "./matrix_units.ts";
import { emptyPacked, type PackedMatrix, queuePackedUpdate } from "./packed_matrix.ts";
import { queueRowBounds } from "./row_bounds.ts";
import { type BlockedTriangle, inverseOf, type Range } from "./triangular_blocks.ts";

/** The most diagonal blocks whose panels update the rest of the matrix together: it is then read and written that much less often. */
const MOST_PANELS = 4;

/** The kernels for diagonal blocks of one size and the panels below them. */
export interface BlockKernels {
  /** Rows of a panel that a workgroup solves. */
  readonly rows: number;
  readonly factor: Kernel;
  readonly invert: Kernel;
  /** By form of the copy and alignment. */
  readonly panels: ReadonlyMap<string, Kernel>;
}

function panelKey({ copy, vec4 }: Pick<PanelForm, "copy" | "vec4">): string {
  return `${copy} ${vec4}`;
}

/** The kernels for panels below diagonal blocks, with those for the blocks themselves. */
export function blockKernels(
  shape: Pick<PanelForm, "block" | "rows" | "groups">,
  factor: Kernel,
  invert: Kernel,
): BlockKernels {
  const forms = (["halves", "floats"] as const).flatMap((copy) =>
    [true, false].map((vec4) => ({ copy, vec4 }))
  );
  return {
    rows: shape.rows,
    factor,
    invert,
    panels: new Map(forms.map((form) => [panelKey(form), choleskyPanel({ ...form, ...shape })])),
  };
}

const WIDE_KERNELS = blockKernels(
  { block: WIDE_BLOCK, rows: 32, groups: 4 },
  CHOLESKY_FACTOR_BLOCK,
  INVERT_TRIANGULAR_BLOCK,
);

/** Those that take drivers longest to compile, as aligned matrices need them on a device with matrix units (`halves`) or without. */
export function longPanelKernels(copy: PanelForm["copy"]): readonly Kernel[] {
  const { factor, invert, panels } = WIDE_KERNELS;
  return [factor, invert, panels.get(panelKey({ copy, vec4: true }))!];
}

/** Every kernel of the factorisation by panels, for the registry. */
export const PANEL_KERNELS: readonly Kernel[] = [
  WIDE_KERNELS.factor,
  WIDE_KERNELS.invert,
  ...WIDE_KERNELS.panels.values(),
  CHOLESKY_ROW_BOUNDS,
];

/** Copies of the last panels, from which the rest of the matrix is updated: a dispatch cannot read one part of a buffer and write another. */
interface PanelCopies extends Disposable {
  readonly form: PanelForm["copy"];
  /** What the panel kernel binds after L and the inverses, and where it puts columns from `column` on: stride and start of the copy. */
  target(column: number): { readonly tensors: readonly Tensor[]; readonly place: readonly [number, number] };
  /** Subtracts, in rows from `rest.start` on and the columns of it, what columns `inner` of the copies contribute. */
  subtract(c: MatrixView, start: number, inner: Range): void;
}

/** Copies as they are, for products without matrix units. */
class FloatCopies implements PanelCopies {
  readonly form = "floats";
  readonly #copy: Tensor;

  constructor(readonly device: GpuDevice, rows: number, readonly columns: number) {
    this.#copy = device.empty([rows, columns]);
  }

  target(column: number) {
    return { tensors: [this.#copy], place: [this.columns, column] } as const;
  }

  subtract(c: MatrixView, start: number, inner: Range): void {
    const copy = wholeMatrix(this.#copy, "factorCholesky");
    const a = block(copy, [start, start + c.rows], inner);
    const b = block(copy, [start, start + c.columns], inner);
    queueProduct(this.device, { a, b, c, transposeB: true, alpha: -1, beta: 1, lowerOnly: true });
  }

  [Symbol.dispose](): void {
    this.#copy.dispose();
  }
}

/** Copies packed for matrix units, with scales that hold for all panels. */
class PackedCopies implements PanelCopies {
  readonly form = "halves";
  readonly #matrix: PackedMatrix;

  constructor(readonly device: GpuDevice, lower: MatrixView, columns: number) {
    this.#matrix = emptyPacked(device, lower.rows, columns);
    queueRowBounds(device, lower, this.#matrix.largest, "factorCholesky");
  }

  target(column: number) {
    const { packed, largest, chunks } = this.#matrix;
    return { tensors: [largest, packed], place: [chunks, column / PACKED_K] } as const;
  }

  subtract(c: MatrixView, start: number, inner: Range): void {
    queuePackedUpdate(this.device, {
      c,
      matrix: this.#matrix,
      rowStart: start,
      columnStart: start,
      inner,
      lowerOnly: true,
    });
  }

  [Symbol.dispose](): void {
    this.#matrix[Symbol.dispose]();
  }
}

/**
 * Factors in place, block by block: one diagonal block, the panel below it, what that leaves of the next few columns, and after a few
 * blocks what their panels together leave of all that is to come.
 */
export function queueFactorByPanels(
  device: GpuDevice,
  { lower, inverses }: BlockedTriangle,
  pivots: Tensor,
  kernels: BlockKernels = WIDE_KERNELS,
): void {
  const [n, size] = [lower.rows, inverses.shape[2]!];
  const together = size * panelsTogether(device, n, size);
  using copies = offersMatrixUnits(device) && size % PACKED_GRAIN === 0
    ? new PackedCopies(device, lower, together)
    : new FloatCopies(device, n, together);
  for (let start = 0; start < n; start += size) {
    const end = Math.min(start + size, n);
    queueDiagonal(device, { lower, inverses }, pivots, kernels, [start, end]);
    if (end === n) return;
    const first = Math.floor(start / together) * together;
    queuePanel(device, { lower, inverses }, kernels, copies, [start, end], start - first);
    const last = Math.min(first + together, n);
    const [until, inner] = end < last
      ? [last, [start - first, end - first] as const]
      : [n, [0, together] as const];
    copies.subtract(block(lower, [end, n], [end, until]), end, inner);
  }
}

/** Copies for matrix units begin at multiples of so many rows. */
const PACKED_GRAIN = 2 * PACKED_ROWS;

/** As many as fit one binding, but for each there are rows as long as those that blocks of this size are made for. */
function panelsTogether(device: GpuDevice, n: number, size: number): number {
  const fitting = Math.floor(device.limits.maxBindingBytes / (4 * Math.ceil(n / 256) * 256 * size));
  return Math.max(1, Math.min(MOST_PANELS, fitting));
}

function queueDiagonal(
  device: GpuDevice,
  { lower, inverses }: BlockedTriangle,
  pivots: Tensor,
  { factor, invert }: BlockKernels,
  range: Range,
): void {
  const { window, base } = windowOf(device, block(lower, range, range));
  const inverse = inverseOf(inverses, range);
  device.dispatch(factor, [window, pivots], [inverse.rows, lower.stride, base, range[0]], [1]);
  device.dispatch(
    invert,
    [window, inverses],
    [inverse.rows, lower.stride, base, inverse.offset],
    [inverses.shape[2]! / INVERSE_COLUMNS],
  );
}

/** Solves the panel below a diagonal block and copies it to columns from `column` on. */
function queuePanel(
  device: GpuDevice,
  { lower, inverses }: BlockedTriangle,
  { panels, rows: perWorkgroup }: BlockKernels,
  copies: PanelCopies,
  range: Range,
  column: number,
): void {
  const panel = block(lower, [range[1], lower.rows], range);
  const { tensors, place } = copies.target(column);
  const kernel = panels.get(panelKey({ copy: copies.form, vec4: isVec4Aligned(panel) }))!;
  forEachRowWindow(device, panel, "factorCholesky", (rows, rowStart) => {
    const { window, base } = windowOf(device, rows);
    device.dispatch(
      kernel,
      [window, inverses, ...tensors],
      [rows.rows, lower.stride, base, inverseOf(inverses, range).offset, range[1] + rowStart, ...place],
      foldGrid(Math.ceil(rows.rows / perWorkgroup)),
    );
  });
}
