/** The adapters, texts, models and methods that the server has, kept for the time of a visit. */
import { api } from "./api.js";

export const library = {
  adapters: [],
  calibrations: [],
  models: [],
  methods: [],
  /** Layouts and precisions that a merge can write. */
  formats: [],
  dtypes: [],
  inspections: new Map(),
};

/** Fetches what can change. */
export async function refresh() {
  const [adapters, calibrations, models] = await Promise.all([
    api.adapters(),
    api.calibrations(),
    api.models(),
  ]);
  Object.assign(library, { adapters, calibrations, models });
  if (library.methods.length > 0) return;
  const [methods, document] = await Promise.all([api.methods(), api.document()]);
  const { format, dtype } = document.components.schemas.MergeRequest.properties;
  Object.assign(library, { methods, formats: format.enum, dtypes: dtype.enum });
}

export function methodNamed(name) {
  return library.methods.find((method) => method.name === name) ?? library.methods[0];
}

/** The name of an adapter or a text; of one that was deleted, its id. */
export function nameOf(id) {
  return [...library.adapters, ...library.calibrations].find((one) => one.id === id)?.name ?? id;
}

/** How an adapter is read; of one that was deleted nothing is known. */
export function readingOf(id) {
  return library.adapters.find((one) => one.id === id) ?? {};
}

/** What an adapter's values show; asked for until the server has looked at them. */
export async function inspection(id) {
  for (let pause = 200; !library.inspections.has(id); pause = Math.min(2 * pause, 5000)) {
    const { inspection, problem } = await api.adapter(id);
    if (inspection || problem) library.inspections.set(id, { inspection, problem });
    else await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return library.inspections.get(id);
}
