/** A matrix that is read row by row, in float64, and never has to be in memory as a whole. */
export interface Entries {
  readonly rows: number;
  readonly columns: number;
  /**
   * Writes rows `from` ≤ i < `to` to the start of `out`.
   */
  read(from: number, to: number, out: Float64Array): void;
}

/** One adapter's factors in host memory: ΔW = scale · b · a. */
export interface HostFactors {
  readonly rank: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly scale: number;
  /** `[rank, in]`, row-major */
  readonly a: Float64Array;
  /** `[out, rank]`, row-major */
  readonly b: Float64Array;
}

/** The entries of a matrix that is in memory. */
export function matrixEntries(matrix: Float64Array, rows: number, columns: number): Entries {
  return {
    rows,
    columns,
    read: (from, to, out) => out.set(matrix.subarray(from * columns, to * columns)),
  };
}

/** The entries of ΔW = scale · b · a, computed when they are read. */
export function deltaEntries({ a, b, scale, rank, inFeatures, outFeatures }: HostFactors): Entries {
  return {
    rows: outFeatures,
    columns: inFeatures,
    read(from, to, out) {
      for (let i = from; i < to; i++) {
        const row = out.subarray((i - from) * inFeatures, (i - from + 1) * inFeatures);
        row.fill(0);
        for (let r = 0; r < rank; r += ROWS_AT_ONCE) {
          if (r + ROWS_AT_ONCE <= rank) addFour(row, scale, b, i * rank + r, a, r * inFeatures);
          else for (let q = r; q < rank; q++) addScaled(row, scale * b[i * rank + q]!, a, q * inFeatures);
        }
      }
    },
  };
}

/** Rows that are added together, so that the result is read and written once for all of them. */
const ROWS_AT_ONCE = 4;

/** row += Σ scale · b[at + r] · (row r of `from`, which begins at `offset`), in this order, r < 4. */
function addFour(
  row: Float64Array,
  scale: number,
  b: Float64Array,
  at: number,
  from: Float64Array,
  offset: number,
): void {
  const length = row.length;
  const f0 = scale * b[at]!, f1 = scale * b[at + 1]!, f2 = scale * b[at + 2]!, f3 = scale * b[at + 3]!;
  const o1 = offset + length, o2 = o1 + length, o3 = o2 + length;
  for (let j = 0; j < length; j++) {
    row[j] = row[j]! + f0 * from[offset + j]! + f1 * from[o1 + j]! + f2 * from[o2 + j]! + f3 * from[o3 + j]!;
  }
}

function addScaled(row: Float64Array, factor: number, from: Float64Array, offset: number): void {
  for (let j = 0; j < row.length; j++) row[j]! += factor * from[offset + j]!;
}

/** Entries that are worked on at once: 512 KiB of float64. */
const TILE_ENTRIES = 1 << 16;

/** Cuts a matrix into runs of whole rows. */
export function* rowTiles(
  { rows, columns }: Pick<Entries, "rows" | "columns">,
): Generator<[from: number, to: number]> {
  const step = Math.max(1, Math.floor(TILE_ENTRIES / columns));
  for (let from = 0; from < rows; from += step) yield [from, Math.min(rows, from + step)];
}

/** Scratch memory for one tile of a matrix. */
export function tileBuffer({ rows, columns }: Pick<Entries, "rows" | "columns">): Float64Array<ArrayBuffer> {
  return new Float64Array(Math.min(rows, Math.max(1, Math.floor(TILE_ENTRIES / columns))) * columns);
}
