/** Options of {@linkcode splice}. */
export interface SpliceOptions {
  /** How many spliced prompts to make. */
  readonly count: number;
  /** Numbers in [0, 1); seed it to get the same prompts again. */
  readonly random: () => number;
}

/**
 * Makes new unlabeled prompts out of given ones. Two prompts of a task are drawn; their common token prefix and suffix (the
 * template) are kept, and a random-length head of one body is joined to a random-length tail of the other. The adapter then
 * answers the splice like any other prompt.
 *
 * @param prompts token ids of each prompt
 * @returns at most `count` splices, none equal to a given prompt or to another splice; fewer where the prompts do not allow more
 */
export function splice(
  prompts: readonly Uint32Array[],
  { count, random }: SpliceOptions,
): Uint32Array<ArrayBuffer>[] {
  const known = new Set(prompts.map(String));
  const splices: Uint32Array<ArrayBuffer>[] = [];
  if (prompts.length < 2) return splices;
  // Short bodies give few distinct splices, so the number of draws is bounded.
  for (let draw = 0; draw < 20 * count && splices.length < count; draw++) {
    const first = Math.floor(random() * prompts.length);
    const second = (first + 1 + Math.floor(random() * (prompts.length - 1))) % prompts.length;
    const made = join(prompts[first]!, prompts[second]!, random);
    if (known.has(String(made))) continue;
    known.add(String(made));
    splices.push(made);
  }
  return splices;
}

/** Template of `a` and `b` around a head of a's body (at least one token, where it has any) and a tail of b's. */
function join(a: Uint32Array, b: Uint32Array, random: () => number): Uint32Array<ArrayBuffer> {
  const { prefix, suffix } = template(a, b);
  const headBody = a.subarray(prefix, a.length - suffix);
  const tailBody = b.subarray(prefix, b.length - suffix);
  const head = headBody.subarray(0, randomLength(headBody.length, random));
  const tail = tailBody.subarray(tailBody.length - randomLength(tailBody.length, random));
  return Uint32Array.of(...a.subarray(0, prefix), ...head, ...tail, ...a.subarray(a.length - suffix));
}

/** Lengths of the longest common prefix, and of the longest common suffix that does not overlap it. */
export function template(
  a: Uint32Array,
  b: Uint32Array,
): { readonly prefix: number; readonly suffix: number } {
  const shorter = Math.min(a.length, b.length);
  let prefix = 0;
  while (prefix < shorter && a[prefix] === b[prefix]) prefix++;
  let suffix = 0;
  while (suffix < shorter - prefix && a[a.length - 1 - suffix] === b[b.length - 1 - suffix]) suffix++;
  return { prefix, suffix };
}

/** 1 … `most`, evenly; 0 where there is nothing to take. */
function randomLength(most: number, random: () => number): number {
  return Math.min(most, 1 + Math.floor(random() * most));
}
