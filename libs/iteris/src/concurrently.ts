/**
 * Waits for all, so that none works on when this returns or throws.
 *
 * @throws what the first that failed threw
 */
export async function allOf<Results extends readonly unknown[]>(
  promises: { readonly [K in keyof Results]: Promise<Results[K]> },
): Promise<Results> {
  const outcomes = await Promise.allSettled(promises);
  return outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  }) as unknown as Results;
}

/** Works on all items at once: while one waits for a device, the others keep it busy. Results come in the order of the items. */
export function concurrently<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  return allOf<Result[]>(items.map(work));
}

/** The same, one item after the other. */
export async function inTurn<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const item of items) results.push(await work(item));
  return results;
}
