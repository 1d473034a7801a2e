/**
 * Scales row i of A and column i of B by opposite powers of two so that their norms agree within a factor of two. The
 * product stays the same to the last bit, and neither factor overflows or vanishes in 16 bits.
 *
 * @param a `[rank, in]`; overwritten
 * @param b `[out, rank]`; overwritten
 */
export function balance(a: Float32Array, b: Float32Array, rank: number): void {
  if (rank === 0) return;
  const inFeatures = a.length / rank;
  const squares = columnSquares(b, rank);
  for (let r = 0; r < rank; r++) {
    const row = a.subarray(r * inFeatures, (r + 1) * inFeatures);
    const rowSquares = row.reduce((sum, value) => sum + value * value, 0);
    if (rowSquares === 0 || squares[r] === 0) continue;
    const exponent = Math.round(Math.log2(squares[r]! / rowSquares) / 4);
    if (exponent === 0) continue;
    const factor = 2 ** exponent;
    for (let i = 0; i < row.length; i++) row[i]! *= factor;
    for (let index = r; index < b.length; index += rank) b[index]! /= factor;
  }
}

function columnSquares(b: Float32Array, rank: number): Float64Array {
  const squares = new Float64Array(rank);
  for (let start = 0; start < b.length; start += rank) {
    for (let r = 0; r < rank; r++) squares[r]! += b[start + r]! ** 2;
  }
  return squares;
}
