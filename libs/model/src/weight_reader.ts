import type { StoredTensor } from "@lora-loom/formats";

/** Rows `[start, end)` of a stored tensor's first dimension. */
export type RowRange = readonly [start: number, end: number];

type Bytes = Uint8Array<ArrayBuffer>;

/** Reads stored bytes, some of them ahead of their use, while the device computes. */
export class WeightReader {
  readonly #ahead = new Map<string, Promise<Bytes>>();

  /** The bytes of some rows, read now unless they were read ahead. */
  read(tensor: StoredTensor, rows: RowRange): Promise<Bytes> {
    const key = keyOf(tensor, rows);
    const ahead = this.#ahead.get(key);
    this.#ahead.delete(key);
    return ahead ?? tensor.readRows(...rows);
  }

  /** Begins to read what will be asked for next. A failure is told to whoever asks for it. */
  readAhead(tensor: StoredTensor, rows: RowRange): void {
    const key = keyOf(tensor, rows);
    if (this.#ahead.has(key)) return;
    const reading = tensor.readRows(...rows);
    reading.catch(() => {});
    this.#ahead.set(key, reading);
  }

  /** Lets go of what was read and not asked for. */
  forget(): void {
    this.#ahead.clear();
  }
}

function keyOf({ name }: StoredTensor, [start, end]: RowRange): string {
  return `${name} ${start} ${end}`;
}

/** Rows that lie so near each other in the file are read together. */
const NEAR = 16;
/** Reads under way at once. */
const READS_AT_ONCE = 16;

/** Some rows of a matrix, in ascending order, one after the other. */
export async function readScattered(tensor: StoredTensor, rows: readonly number[]): Promise<Bytes> {
  const rowBytes = tensor.byteLength / tensor.shape[0]!;
  const result = new Uint8Array(rows.length * rowBytes);
  const runs = nearbyRuns(rows);
  const read = async ([first, end]: RowRange) => {
    const start = rows[first]!;
    const bytes = await tensor.readRows(start, rows[end - 1]! + 1);
    for (let index = first; index < end; index++) {
      const from = (rows[index]! - start) * rowBytes;
      result.set(bytes.subarray(from, from + rowBytes), index * rowBytes);
    }
  };
  for (let first = 0; first < runs.length; first += READS_AT_ONCE) {
    await Promise.all(runs.slice(first, first + READS_AT_ONCE).map(read));
  }
  return result;
}

/** Ranges of indices whose rows are worth reading in one go. */
function nearbyRuns(rows: readonly number[]): RowRange[] {
  const runs: [number, number][] = [];
  rows.forEach((row, index) => {
    const last = runs.at(-1);
    if (last && row - rows[index - 1]! <= NEAR) last[1] = index + 1;
    else runs.push([index, index + 1]);
  });
  return runs;
}
