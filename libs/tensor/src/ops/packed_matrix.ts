import { foldGrid } from "../gpu/grid.ts";
import type { GpuDevice, TensorWindow } from "../gpu/gpu_device.ts";
import { block, fitsBinding, type MatrixView, windowOf } from "../gpu/matrix_view.ts";
import { PACKED_K, PACKED_ROWS } from "../kernels/pack_halves.ts";
import { elementCount, type Tensor } from "../tensor.ts";
import { RUN, unitKernelFor } from "./matrix_unit_kernels.ts";

/** A matrix that is packed in two parts panel by panel as it comes into being, with common scales for each of its rows. */
export interface PackedMatrix extends Disposable {
  /** `[tiles of 128 rows, chunks of 16 columns, …]`, as `packHalves` leaves them. */
  readonly packed: Tensor;
  /** What rows are scaled by, as bits of magnitudes. */
  readonly largest: Tensor;
  readonly chunks: number;
}

/** Memory for a packed matrix of so many rows and columns, both undefined. */
export function emptyPacked(device: GpuDevice, rows: number, columns: number): PackedMatrix {
  // The widest blocks of the kernels span two tiles.
  const tiles = 2 * Math.ceil(rows / (2 * PACKED_ROWS));
  const chunks = Math.ceil(columns / PACKED_K);
  const packed = device.empty([tiles * chunks, PACKED_CHUNK], "u32");
  const largest = device.empty([rows], "u32");
  return { packed, largest, chunks, [Symbol.dispose]: () => [packed, largest].forEach((x) => x.dispose()) };
}

/** u32s of a chunk of a packed tile, both parts. */
const PACKED_CHUNK = PACKED_ROWS * PACKED_K;

/** C −= X Yᵀ for rows X and Y of one packed matrix. */
export interface PackedUpdate {
  readonly c: MatrixView;
  readonly matrix: PackedMatrix;
  /** First rows of X and of Y, multiples of 256. */
  readonly rowStart: number;
  readonly columnStart: number;
  /** Columns of the packed matrix that count, multiples of 32. */
  readonly inner: readonly [start: number, end: number];
  /** Leave tiles above the diagonal of C as they are. */
  readonly lowerOnly: boolean;
}

/** Queues an update on matrix units by what is packed already. */
export function queuePackedUpdate(device: GpuDevice, update: PackedUpdate): void {
  const { c, matrix, rowStart, columnStart, inner, lowerOnly } = update;
  if (!fitsBinding(device, c) && c.rows > PACKED_ROWS) {
    const half = Math.ceil(c.rows / (2 * PACKED_ROWS)) * PACKED_ROWS;
    const columns = lowerOnly ? Math.min(half, c.columns) : c.columns;
    queuePackedUpdate(device, { ...update, c: block(c, [0, half], [0, columns]) });
    const lower = block(c, [half, c.rows], [0, c.columns]);
    queuePackedUpdate(device, { ...update, c: lower, rowStart: rowStart + half, lowerOnly: false });
    return;
  }
  const { kernel, shape } = unitKernelFor(update, "both");
  const tileRows = Math.ceil(c.rows / shape.rows);
  const tileColumns = Math.ceil(c.columns / shape.columns);
  const { window, base } = windowOf(device, c);
  const [left, right] = [rowStart, columnStart].map((row) => packedFrom(matrix, row, inner[0]));
  device.dispatch(kernel, [left!.packed, right!.packed, left!.largest, right!.largest, window], [
    c.rows,
    c.columns,
    tileRows,
    tileColumns,
    matrix.chunks,
    (inner[1] - inner[0]) / PACKED_K,
    0,
    RUN.f32 / PACKED_K,
    c.stride,
    base,
    lowerOnly ? 1 : 0,
    -1,
    1,
  ], foldGrid(tileRows * tileColumns));
}

/** What to bind so that the kernels find row `row` first, and column `column` of it. */
function packedFrom({ packed, largest, chunks }: PackedMatrix, row: number, column: number) {
  const start = (row / PACKED_ROWS * chunks + column / PACKED_K) * PACKED_CHUNK;
  const window = (tensor: Tensor, from: number): TensorWindow => ({
    tensor,
    start: from,
    end: elementCount(tensor.shape),
  });
  return { packed: window(packed, start), largest: window(largest, row) };
}
