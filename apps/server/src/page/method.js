/** The second step: the method, its parameters, and what it needs besides adapters. */
import { api } from "./api.js";
import { errorBox, field, h, newId } from "./dom.js";
import { changed, draft, parameterText, setParameter } from "./draft.js";
import { library, methodNamed, nameOf, refresh } from "./library.js";

/** How many methods of a group are shown at once. */
const SHOWN = 5;

/** Parameters that most people want to see; the others are folded away. */
const FIRST = new Set(["rank", "density", "samples", "output_scale", "schedule"]);

export function methodSection() {
  const about = h("div", { class: "about", id: "about-method", "aria-live": "polite" });
  const inputs = h("div");
  const parameters = h("div");
  const groups = [
    ["From the adapters alone", (method) => !method.needs.calibration],
    ["With the base model and a few prompts", (method) => method.needs.calibration],
  ];
  const element = h(
    "section",
    { class: "card", "aria-labelledby": "step-method" },
    h("header", {}, h("h2", { id: "step-method" }, "Method")),
    h(
      "div",
      { class: "methods" },
      groups.map(([title, test]) => chips(title, library.methods.filter(test), render)),
      about,
      inputs,
      parameters,
    ),
  );

  function render() {
    const method = methodNamed(draft.method);
    about.replaceChildren(
      h("h3", {}, method.title),
      h("p", {}, method.summary),
      h("p", { class: "formula" }, formulaText(method.formula)),
      h("p", { class: "small soft" }, method.source),
    );
    renderInputs();
    parameters.replaceChildren(...parameterFields(method));
  }

  /** What depends on the chosen adapters too. */
  function renderInputs() {
    inputs.replaceChildren(...needsFields(methodNamed(draft.method), renderInputs));
  }

  render();
  return { element, renderInputs };
}

function chips(title, methods, render) {
  const chip = (method) =>
    h(
      "label",
      { class: "chip" },
      h("input", {
        type: "radio",
        name: "method",
        value: method.name,
        checked: method.name === draft.method,
        "aria-describedby": "about-method",
        onchange() {
          draft.method = method.name;
          changed();
          render();
        },
      }),
      h("span", {}, method.name),
    );
  const rest = methods.slice(SHOWN);
  return h(
    "fieldset",
    { class: "group" },
    h("legend", { class: "small soft" }, title),
    h("div", { class: "chips" }, methods.slice(0, SHOWN).map(chip)),
    rest.length > 0 && h(
      "details",
      { open: rest.some(({ name }) => name === draft.method) },
      h("summary", {}, `${rest.length} more`),
      h("div", { class: "chips" }, rest.map(chip)),
    ),
  );
}

function parameterFields({ parameters }) {
  const shown = parameters.filter(({ name }) => FIRST.has(name));
  const first = shown.length > 0 ? shown : parameters.slice(0, 2);
  const rest = parameters.filter((parameter) => !first.includes(parameter));
  return [
    first.length > 0 && h("div", { class: "fields" }, first.map(parameterField)),
    rest.length > 0 && h(
      "details",
      { open: rest.some(({ name }) => parameterText(name) !== undefined) },
      h("summary", {}, `More parameters (${rest.length})`),
      h("div", { class: "fields" }, rest.map(parameterField)),
    ),
  ].filter(Boolean);
}

/** A formula with its indices below the line: `C_i` is written as mathematics is. */
function formulaText(formula) {
  return formula.split(/_([A-Za-z0-9])(?![A-Za-z0-9_])/).map((part, index) =>
    index % 2 === 0 ? part : h("sub", {}, part)
  );
}

function parameterField(parameter) {
  const { name, help, formula, type, range, default: fallback } = parameter;
  const isChoice = type === "choice" || type === "boolean";
  const explained = [
    h("span", {}, help),
    formula && h("span", {}, h("br"), h("span", { class: "formula" }, formulaText(formula))),
    !isChoice && h("span", {}, h("br"), `Takes ${range}. Default: ${fallback}.`),
  ].filter(Boolean);
  const control = isChoice ? choiceControl(parameter) : textControl(parameter);
  const element = field(name.replaceAll("_", " "), control, explained);
  if (!isChoice) offerWords(parameter, control, element);
  return element;
}

/** Words that a parameter takes besides numbers are offered while one types. */
function offerWords({ schema }, input, place) {
  const words = (schema.anyOf ?? []).flatMap((form) => form.enum ?? []);
  if (words.length === 0) return;
  const id = newId();
  input.setAttribute("list", id);
  place.append(h("datalist", { id }, words.map((value) => h("option", { value }))));
}

function choiceControl({ name, type, schema, default: fallback }) {
  const choices = type === "boolean" ? ["true", "false"] : schema.enum.map(String);
  const word = (choice) => type === "boolean" ? (choice === "true" ? "yes" : "no") : choice;
  const select = h(
    "select",
    { onchange: () => setParameter(name, select.value === fallback ? "" : select.value) },
    choices.map((choice) =>
      h("option", { value: choice }, choice === fallback ? `${word(choice)} (default)` : word(choice))
    ),
  );
  select.value = parameterText(name) ?? (choices.includes(fallback) ? fallback : choices[0]);
  return select;
}

/** Whether a text is one that the parameter takes; only the server knows all of it. */
function isFit(schema, text) {
  if (text.trim() === "") return true;
  const forms = schema.anyOf ?? [schema];
  return forms.some((form) => {
    if (form.enum) return form.enum.includes(text);
    if (form.pattern) return new RegExp(form.pattern).test(text);
    if (form.type !== "number" && form.type !== "integer") return true;
    const value = Number(text);
    return Number.isFinite(value) && (form.type !== "integer" || Number.isInteger(value)) &&
      !(value < form.minimum) && !(value > form.maximum) && !(value <= form.exclusiveMinimum);
  });
}

function textControl({ name, schema, default: fallback, range }) {
  const isNumber = !schema.anyOf && schema.type !== undefined;
  const input = h("input", {
    type: "text",
    inputmode: isNumber ? "decimal" : "text",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: fallback,
    value: parameterText(name) ?? "",
    oninput() {
      const fits = isFit(schema, input.value);
      input.classList.toggle("wrong", !fits);
      input.setCustomValidity(fits ? "" : `${name} takes ${range}`);
      setParameter(name, input.value.trim());
    },
  });
  return input;
}

function needsFields({ needs }, render) {
  const fields = [];
  if (needs.base_model || library.models.length > 0) fields.push(modelField(needs.base_model));
  if (needs.calibration) fields.push(calibrationFields(render));
  return fields;
}

function modelField(isNeeded) {
  if (library.models.length === 0) {
    return h(
      "p",
      { class: "note" },
      "This method runs the base model. The server offers none: start it with --models DIR.",
    );
  }
  const names = library.models.map(({ name }) => name);
  if (!names.includes(draft.base_model)) draft.base_model = "";
  if (isNeeded && draft.base_model === "") {
    draft.base_model = names[0];
    changed();
  }
  const select = h(
    "select",
    {
      onchange() {
        draft.base_model = select.value;
        changed();
      },
    },
    !isNeeded && h("option", { value: "" }, "none"),
    names.map((name) => h("option", { value: name }, name)),
  );
  select.value = draft.base_model;
  return field(
    "base model",
    select,
    "The model that the adapters were trained on, from the server's folder of models.",
  );
}

function calibrationFields(render) {
  assignByName();
  const problem = h("div");
  const file = h("input", {
    type: "file",
    accept: ".jsonl,.json,.txt",
    multiple: true,
    hidden: true,
    id: "pick-calibration",
    "aria-label": "Calibration files",
    async onchange() {
      try {
        for (const one of file.files) assign(await api.uploadCalibration(one));
        await refresh();
        changed();
        render();
      } catch (error) {
        problem.replaceChildren(errorBox(error.error));
      }
    },
  });
  const rows = draft.adapters.map((chosen) => {
    const select = h(
      "select",
      {
        onchange() {
          chosen.calibration = select.value || undefined;
          changed();
        },
      },
      h("option", { value: "" }, "none yet"),
      library.calibrations.map(({ id, name, rows: count }) =>
        h("option", { value: id }, `${name} (${count} rows)`)
      ),
    );
    select.value = chosen.calibration ?? "";
    return field(`prompts for ${nameOf(chosen.id)}`, select);
  });
  return h(
    "div",
    { class: "methods" },
    h("h3", {}, "Calibration prompts"),
    h(
      "p",
      { class: "small soft" },
      'For each adapter a JSON Lines file of its task, with {"prompt": …} or {"text": …} a row. No answers are needed.',
    ),
    h("div", { class: "fields" }, rows),
    h("div", {}, h("button", { type: "button", onclick: () => file.click() }, "Add prompts"), file),
    problem,
  );
}

/** `Language.train.jsonl` is meant for an adapter called language. */
const stemOf = (name) => name.split(".")[0].toLowerCase();

/** Adapters without prompts get those that bear their name. */
function assignByName() {
  for (const one of draft.adapters.filter(({ calibration }) => !calibration)) {
    const name = stemOf(nameOf(one.id));
    const found = library.calibrations.find((text) => stemOf(text.name) === name);
    if (!found) continue;
    one.calibration = found.id;
    changed();
  }
}

/** A new text goes to the adapter whose name it bears, else to the first without one. */
function assign({ id, name }) {
  const target = draft.adapters.find((one) => stemOf(nameOf(one.id)) === stemOf(name)) ??
    draft.adapters.find((one) => one.calibration === undefined);
  if (target) target.calibration = id;
}
