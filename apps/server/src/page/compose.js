/** The page on which a merge is put together. */
import { adaptersSection } from "./adapters.js";
import { api, ApiError } from "./api.js";
import { copyable, errorBox, field, h } from "./dom.js";
import { changed, draft, forgetListeners, onChange, requestOf } from "./draft.js";
import { threads } from "./drawing.js";
import { plural } from "./format.js";
import { library, methodNamed, nameOf, readingOf, refresh } from "./library.js";
import { methodSection } from "./method.js";
import { commandLine, recipeYaml } from "./recipe.js";

export async function composePage() {
  await refresh();
  forgetListeners();
  // An adapter may have been deleted since.
  draft.adapters = draft.adapters.filter(({ id }) => library.adapters.some((one) => one.id === id));
  for (const one of draft.adapters) {
    if (!library.calibrations.some(({ id }) => id === one.calibration)) delete one.calibration;
  }
  const adapters = adaptersSection();
  const method = methodSection();
  const chosenIds = () => draft.adapters.map(({ id }) => id).join();
  let ids = chosenIds();
  onChange(() => {
    if (ids === chosenIds()) return;
    ids = chosenIds();
    method.renderInputs();
  });
  return h(
    "div",
    {},
    h(
      "div",
      { class: "intro" },
      h("h1", {}, "Weave several adapters into one"),
      h(
        "p",
        {},
        "Choose adapters of one base model, say how much each counts, and pick a method. The result is a plain adapter that does all their jobs.",
      ),
    ),
    h(
      "div",
      { class: "compose" },
      h("div", { class: "steps" }, adapters.element, method.element, outputSection()),
      recipePanel(),
    ),
  );
}

function bound(name, properties = {}) {
  const input = h("input", {
    type: "text",
    autocomplete: "off",
    value: draft[name],
    oninput() {
      draft[name] = input.value;
      changed();
    },
    ...properties,
  });
  return input;
}

function outputSection() {
  const choice = (key, names) => {
    const select = h(
      "select",
      {
        onchange() {
          draft[key] = select.value;
          changed();
        },
      },
      names.map((name) => h("option", { value: name }, name)),
    );
    select.value = draft[key];
    return select;
  };
  const isUsed = ["name", "include", "exclude", "seed"].some((key) => draft[key] !== "") ||
    draft.dtype !== "float32" || draft.format !== "peft";
  return h(
    "section",
    { class: "card", "aria-labelledby": "step-output" },
    h("header", {}, h("h2", { id: "step-output" }, "Result")),
    h(
      "details",
      { open: isUsed },
      h("summary", {}, "Name, layout, precision, modules, seed"),
      h(
        "div",
        { class: "fields" },
        field(
          "name",
          bound("name", { maxlength: "120" }),
          "How the result is called here and in its archive.",
        ),
        field(
          "layout",
          choice("format", library.formats),
          "What the result is for: peft loads in PEFT, vLLM and llama.cpp's converter.",
        ),
        field("precision", choice("dtype", library.dtypes), "Of the numbers in the merged adapter."),
        field(
          "only modules",
          bound("include", { spellcheck: "false", placeholder: "all" }),
          "Patterns such as *.q_proj, separated by spaces.",
        ),
        field(
          "without modules",
          bound("exclude", { spellcheck: "false", placeholder: "none" }),
          "Patterns of modules to leave out.",
        ),
        field(
          "seed",
          bound("seed", { inputmode: "numeric", placeholder: "42" }),
          "Everything random comes from this number: the same recipe gives the same bytes.",
        ),
      ),
    ),
  );
}

/** What is missing before the merge can start; undefined when nothing is. */
function missing(method) {
  if (draft.adapters.length === 0) return "Choose at least one adapter.";
  if (method.needs.base_model && library.models.length === 0) return "The server offers no base model.";
  if (method.needs.calibration) {
    const bare = draft.adapters.filter(({ calibration }) => !calibration).map(({ id }) => nameOf(id));
    if (bare.length > 0) return `Add calibration prompts for ${bare.join(", ")}.`;
  }
  return undefined;
}

/** The recipe as it stands, and the button that starts it. */
function recipePanel() {
  const picture = h("div");
  const recipe = copyable("recipe.yaml", "");
  const command = copyable("Command line", commandLine());
  const hint = h("p", { class: "small soft", id: "start-hint" });
  const problem = h("div");
  const start = h("button", {
    type: "button",
    class: "primary wide",
    "aria-describedby": "start-hint",
    onclick: run,
  }, "Start the merge");

  async function run() {
    problem.replaceChildren();
    start.disabled = true;
    try {
      const merge = await api.startMerge(requestOf(methodNamed(draft.method)));
      location.hash = `#/merges/${merge.id}`;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      problem.replaceChildren(errorBox(error.error));
      start.disabled = false;
    }
  }

  function render() {
    const method = methodNamed(draft.method);
    const lack = missing(method);
    picture.hidden = draft.adapters.length === 0;
    picture.replaceChildren(threads(draft.adapters.map(({ weight }) => weight)));
    recipe.set(recipeYaml(requestOf(method), nameOf, readingOf));
    start.disabled = lack !== undefined;
    hint.textContent = lack ?? `${method.title}, ${plural(draft.adapters.length, "adapter")}`;
  }

  onChange(render);
  render();
  return h(
    "aside",
    { class: "aside", "aria-label": "Recipe" },
    h("div", { class: "card methods" }, picture, start, hint, problem),
    h("div", { class: "card methods" }, recipe.element, command.element),
  );
}
