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
  const squaresA = rowSquares(a, rank, inFeatures);
  const squaresB = columnSquares(b, rank);
  for (let r = 0; r < rank; r++) {
    if (squaresA[r] === 0 || squaresB[r] === 0) continue;
    const exponent = Math.round(Math.log2(squaresB[r]! / squaresA[r]!) / 4);
    if (exponent === 0) continue;
    const factor = 2 ** exponent;
    for (let i = r * inFeatures; i < (r + 1) * inFeatures; i++) a[i]! *= factor;
    for (let i = r; i < b.length; i += rank) b[i]! /= factor;
  }
}

function rowSquares(a: Float32Array, rank: number, length: number): Float64Array {
  const squares = new Float64Array(rank);
  for (let r = 0; r < rank; r++) {
    let sum = 0;
    for (let i = r * length; i < (r + 1) * length; i++) sum += a[i]! * a[i]!;
    squares[r] = sum;
  }
  return squares;
}

function columnSquares(b: Float32Array, rank: number): Float64Array {
  const squares = new Float64Array(rank);
  for (let start = 0; start < b.length; start += rank) {
    for (let r = 0; r < rank; r++) squares[r]! += b[start + r]! * b[start + r]!;
  }
  return squares;
}
