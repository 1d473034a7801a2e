/**
 * The assignment of rows to distinct columns with the least total cost (Kuhn 1955; shortest augmenting paths with
 * potentials, O(rows² · columns)).
 *
 * @param cost rows × columns with rows ≤ columns, finite
 * @returns the column of each row
 */
export function hungarian(cost: Float64Array, rows: number, columns: number): number[] {
  const rowPotential = new Float64Array(rows);
  const columnPotential = new Float64Array(columns);
  const rowOf = new Int32Array(columns).fill(-1);
  for (let row = 0; row < rows; row++) augment(cost, columns, row, rowPotential, columnPotential, rowOf);
  const columnOf = new Array<number>(rows);
  rowOf.forEach((row, column) => {
    if (row >= 0) columnOf[row] = column;
  });
  return columnOf;
}

/** Finds room for `start`, moving earlier rows where that is cheaper. */
function augment(
  cost: Float64Array,
  columns: number,
  start: number,
  rowPotential: Float64Array,
  columnPotential: Float64Array,
  rowOf: Int32Array,
): void {
  const slack = new Float64Array(columns).fill(Infinity);
  const cameFrom = new Int32Array(columns).fill(-1);
  const visited = new Uint8Array(columns);
  let row = start;
  let column = -1;
  do {
    let next = -1;
    for (let j = 0; j < columns; j++) {
      if (visited[j]) continue;
      const reduced = cost[row * columns + j]! - rowPotential[row]! - columnPotential[j]!;
      if (reduced < slack[j]!) {
        slack[j] = reduced;
        cameFrom[j] = column;
      }
      if (next === -1 || slack[j]! < slack[next]!) next = j;
    }
    const step = slack[next]!;
    rowPotential[start]! += step;
    for (let j = 0; j < columns; j++) {
      if (visited[j]) {
        rowPotential[rowOf[j]!]! += step;
        columnPotential[j]! -= step;
      } else slack[j]! -= step;
    }
    visited[next] = 1;
    column = next;
    row = rowOf[column]!;
  } while (row !== -1);
  for (let j = column; j !== -1; j = cameFrom[j]!) {
    rowOf[j] = cameFrom[j] === -1 ? start : rowOf[cameFrom[j]!]!;
  }
}
