/** The recipe that is being put together. It survives a reload. */

const KEY = "lora-loom-draft";

const EMPTY = {
  method: "lego",
  /** In the order in which they were chosen: {id, weight, calibration?} */
  adapters: [],
  /** By method, then by parameter: the text in its control. */
  parameters: {},
  base_model: "",
  name: "",
  include: "",
  exclude: "",
  format: "peft",
  dtype: "float32",
  seed: "",
};

function load() {
  try {
    return { ...structuredClone(EMPTY), ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return structuredClone(EMPTY);
  }
}

export const draft = load();
const listeners = new Set();

/** Says that the draft was changed. */
export function changed() {
  localStorage.setItem(KEY, JSON.stringify(draft));
  for (const listener of listeners) listener();
}

/** Calls `listener` after each change; forgets those of the last page. */
export function onChange(listener) {
  listeners.add(listener);
}

export function forgetListeners() {
  listeners.clear();
}

/** The value of a parameter's control, or undefined where the default is to hold. */
export function parameterText(name) {
  return draft.parameters[draft.method]?.[name];
}

export function setParameter(name, text) {
  const own = draft.parameters[draft.method] ??= {};
  if (text === "") delete own[name];
  else own[name] = text;
  changed();
}

const words = (text) => text.split(/[\s,]+/).filter((word) => word !== "");

/** A control's text as the value that the API takes. */
function parameterValue(schema, text) {
  if (schema.type === "boolean") return text === "true";
  const number = Number(text);
  return schema.enum || text.trim() === "" || Number.isNaN(number) ? text : number;
}

/** The draft as a request for a merge. */
export function requestOf(method) {
  const parameters = {};
  for (const { name, schema } of method.parameters) {
    const text = parameterText(name);
    if (text !== undefined) parameters[name] = parameterValue(schema, text);
  }
  const { calibration: needsText } = method.needs;
  const include = words(draft.include);
  const exclude = words(draft.exclude);
  return {
    ...(draft.name.trim() ? { name: draft.name.trim() } : {}),
    method: method.name,
    ...(draft.base_model ? { base_model: draft.base_model } : {}),
    adapters: draft.adapters.map(({ id, weight, calibration }) => ({
      id,
      weight,
      ...(needsText && calibration ? { calibration } : {}),
    })),
    ...(Object.keys(parameters).length > 0 ? { parameters } : {}),
    ...(include.length > 0 ? { include } : {}),
    ...(exclude.length > 0 ? { exclude } : {}),
    ...(draft.format !== "peft" ? { format: draft.format } : {}),
    ...(draft.dtype !== "float32" ? { dtype: draft.dtype } : {}),
    ...(draft.seed.trim() !== "" ? { seed: Number(draft.seed) } : {}),
  };
}

/** Takes an old request up again. */
export function takeUp(request) {
  Object.assign(draft, structuredClone(EMPTY), {
    method: request.method,
    adapters: request.adapters.map(({ id, weight = 1, calibration }) => ({ id, weight, calibration })),
    base_model: request.base_model ?? "",
    name: request.name ?? "",
    include: (request.include ?? []).join(" "),
    exclude: (request.exclude ?? []).join(" "),
    format: request.format ?? "peft",
    dtype: request.dtype ?? "float32",
    seed: request.seed === undefined ? "" : String(request.seed),
    parameters: {
      [request.method]: Object.fromEntries(
        Object.entries(request.parameters ?? {}).map(([name, value]) => [name, String(value)]),
      ),
    },
  });
  changed();
}

/** What is chosen of an adapter; nothing where it is not. */
export const chosen = (id) => draft.adapters.find((one) => one.id === id);

/** Chooses an adapter, as the last, or leaves it out. */
export function choose(id, isOn) {
  draft.adapters = draft.adapters.filter((one) => one.id !== id);
  if (isOn) draft.adapters.push({ id, weight: 1 });
  changed();
}
