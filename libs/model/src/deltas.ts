import type { Delta, Deltas, Site } from "./base_model.ts";
import { ModelError } from "./errors.ts";

/** Throws `adapter_mismatch` unless the delta, if there is one, has the site's sizes. */
export function checkDelta(site: Site, delta: Delta | undefined): void {
  if (!delta) return;
  const { a, b } = delta;
  const fits = a.shape.length === 2 && b.shape.length === 2 && a.shape[1] === site.inFeatures &&
    b.shape[0] === site.outFeatures && a.shape[0] === b.shape[1];
  if (fits) return;
  throw mismatch(
    site.module,
    `the adapter has A [${a.shape}] and B [${b.shape}] for ${site.module}; ` +
      `the model expects A [rank, ${site.inFeatures}] and B [${site.outFeatures}, rank]`,
  );
}

/** Throws `adapter_mismatch` unless every delta fits a site. */
export function checkDeltas(deltas: Deltas, sites: ReadonlyMap<string, Site>): void {
  for (const [module, delta] of deltas) {
    const site = sites.get(module);
    if (!site) {
      throw mismatch(
        module,
        `the adapter changes ${module} (A [${delta.a.shape}], B [${delta.b.shape}]), which the model lacks or cannot adapt`,
      );
    }
    checkDelta(site, delta);
  }
}

function mismatch(module: string, message: string): ModelError {
  return new ModelError(
    "adapter_mismatch",
    message,
    "use the base model that the adapter was trained on",
    module,
  );
}

/** Releases the tensors of deltas that are no longer needed. */
export function disposeDeltas(deltas: Deltas): void {
  for (const { a, b } of deltas.values()) {
    a.dispose();
    b.dispose();
  }
}
