/** The outcome of work that runs beside other work, kept so that its failure is not reported before it is looked at. */
export type Settled<T> = Promise<PromiseSettledResult<T>>;

/** Looks after work until {@linkcode unwrap} asks for its outcome. */
export function settled<T>(work: Promise<T>): Settled<T> {
  return Promise.allSettled([work]).then(([result]) => result);
}

/** What the work gave; throws what it threw. */
export async function unwrap<T>(work: Settled<T>): Promise<T> {
  const result = await work;
  if (result.status === "rejected") throw result.reason;
  return result.value;
}
