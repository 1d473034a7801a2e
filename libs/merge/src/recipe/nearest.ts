/** Number of insertions, deletions, substitutions and swaps of neighbours that turn one word into the other. */
export function editDistance(from: string, to: string): number {
  const rows: number[][] = [Array.from({ length: to.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= from.length; i++) {
    const row = [i];
    for (let j = 1; j <= to.length; j++) {
      const substitution = rows[i - 1]![j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1);
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, substitution);
      const swapped = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      if (swapped) best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      row.push(best);
    }
    rows.push(row);
  }
  return rows[from.length]![to.length]!;
}

/** The known word nearest to `word`, case aside; the first of equals. `undefined` only when none is known. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** A sentence that leads from a wrong word to the right one: the nearest where it is near, else all of them. */
export function didYouMean(word: string, known: readonly string[]): string {
  const candidate = nearest(word, known);
  if (candidate === undefined) return "none is known here";
  const isNear =
    editDistance(word.toLowerCase(), candidate.toLowerCase()) <= Math.max(2, Math.ceil(word.length / 3));
  const others = `known: ${known.join(", ")}`;
  return isNear
    ? `did you mean ${JSON.stringify(candidate)}? (${others})`
    : `the nearest is ${JSON.stringify(candidate)} (${others})`;
}
