/**
 * How far two partitions agree (Hubert & Arabie 1985): 1 for equal ones, around 0 for unrelated ones. Two partitions that
 * are both trivial in the same way count as equal.
 */
export function adjustedRandIndex(x: ArrayLike<number>, y: ArrayLike<number>): number {
  const joint = new Map<string, number>();
  const left = new Map<number, number>();
  const right = new Map<number, number>();
  for (let i = 0; i < x.length; i++) {
    const key = `${x[i]} ${y[i]}`;
    joint.set(key, (joint.get(key) ?? 0) + 1);
    left.set(x[i]!, (left.get(x[i]!) ?? 0) + 1);
    right.set(y[i]!, (right.get(y[i]!) ?? 0) + 1);
  }
  const together = pairs(joint), inX = pairs(left), inY = pairs(right);
  const expected = x.length > 1 ? (inX * inY) / ((x.length * (x.length - 1)) / 2) : 0;
  const most = (inX + inY) / 2;
  return most === expected ? 1 : (together - expected) / (most - expected);
}

function pairs<Key>(counts: ReadonlyMap<Key, number>): number {
  let total = 0;
  for (const count of counts.values()) total += (count * (count - 1)) / 2;
  return total;
}
