/** One adapter of the list: what it is, its weight, and its details. */
import { api } from "./api.js";
import { errorBox, h, newId } from "./dom.js";
import { changed, choose, chosen, draft } from "./draft.js";
import { spark } from "./drawing.js";
import { bytesText, countText, numberText, plural } from "./format.js";
import { inspection, refresh } from "./library.js";

function factsText({ format, ranks, modules, parameters, bytes, base_model: base, drop, expand }) {
  return [
    format,
    `rank ${ranks.join(", ")}`,
    plural(modules, "module"),
    `${countText(parameters)} parameters`,
    bytesText(bytes),
    base && `for ${base}`,
    drop?.length > 0 && `without ${drop.join(", ")}`,
    expand && "expanded",
  ].filter(Boolean).join(" · ");
}

/** The line of an adapter; `render` is called when the list has to be drawn anew. */
export function adapterItem(adapter, render) {
  const { id, name } = adapter;
  const isOn = Boolean(chosen(id));
  const index = draft.adapters.findIndex((one) => one.id === id);
  const box = newId();
  const sparkPlace = h("span");
  const more = h("div", { class: "adapter-more", hidden: true });
  const toggle = h("button", {
    type: "button",
    class: "plain",
    "aria-expanded": "false",
    "aria-label": `Details of ${name}`,
    async onclick() {
      more.hidden = !more.hidden;
      toggle.setAttribute("aria-expanded", String(!more.hidden));
      if (!more.hidden) more.replaceChildren(...await details(adapter, render));
    },
  }, "Details");
  inspection(id).then(({ inspection: seen }) => {
    if (seen) {
      sparkPlace.append(
        spark(seen.modules.map(({ norm }) => norm ?? 0), "Norm of the change, module by module"),
      );
    }
  }).catch(() => {
    // The details say what is wrong.
  });
  return h(
    "li",
    { class: `adapter ${isOn ? `on t${index % 10}` : ""}` },
    h(
      "div",
      { class: "adapter-head" },
      h("input", {
        type: "checkbox",
        id: box,
        checked: isOn,
        "data-adapter": id,
        onchange(event) {
          choose(id, event.target.checked);
          render();
        },
      }),
      h("label", { for: box, class: "adapter-name" }, h("span", { class: "adapter-name" }, name)),
      h("span", { class: "adapter-facts" }, factsText(adapter)),
      h("span", { class: "adapter-tools" }, sparkPlace, toggle),
    ),
    isOn && weightControl(id, name),
    more,
  );
}

/** A slider and a number that always say the same. */
function weightControl(id, name) {
  const { weight } = chosen(id);
  const label = newId();
  const showPart = () => {
    const { min, max, value } = slider;
    slider.style.setProperty("--part", `${100 * (value - min) / (max - min)}%`);
  };
  const set = (text, other) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value)) return;
    chosen(id).weight = value;
    other.value = text;
    showPart();
    changed();
  };
  const slider = h("input", {
    type: "range",
    min: Math.min(-1, weight),
    max: Math.max(2, weight),
    step: "0.05",
    value: weight,
    "aria-label": `Weight of ${name}`,
    oninput: () => set(slider.value, number),
  });
  slider.value = weight;
  showPart();
  const number = h("input", {
    type: "number",
    step: "any",
    value: weight,
    "aria-label": `Weight of ${name} as a number`,
    oninput: () => set(number.value, slider),
  });
  return h(
    "div",
    { class: "adapter-weight" },
    h("span", { class: "small soft", id: label }, "Weight"),
    slider,
    number,
  );
}

async function details(adapter, render) {
  const { inspection: seen, problem } = await inspection(adapter.id);
  const remove = h("button", {
    type: "button",
    class: "danger",
    async onclick() {
      if (!confirm(`Delete ${adapter.name} from this server?`)) return;
      try {
        await api.deleteAdapter(adapter.id);
        choose(adapter.id, false);
        await refresh();
        render();
      } catch (error) {
        remove.before(errorBox(error.error));
      }
    },
  }, "Delete this adapter");
  return [
    problem && errorBox(problem),
    seen && facts(seen),
    seen && problems(seen.problems),
    seen && moduleTable(seen.modules),
    h("p", { class: "small soft mono" }, adapter.files.map(({ name }) => name).join(", ")),
    h("div", {}, remove),
  ].filter(Boolean);
}

function facts({ norm, scales, serving, max_lora_rank: rank }) {
  const names = (isOk) =>
    Object.entries(serving).filter(([, { ok }]) => ok === isOk).map(([name]) => name.replace("_", ".")).join(
      ", ",
    );
  return h(
    "p",
    {},
    `‖ΔW‖ = ${numberText(norm)}, scale ${scales.map(numberText).join(", ")}, needs --max-lora-rank ${rank}. `,
    `Loads as it is in: ${names(true) || "none"}. Not in: ${names(false) || "none"}.`,
  );
}

function problems(list) {
  if (list.length === 0) return undefined;
  return h("ul", {}, list.map(({ message }) => h("li", { class: "note" }, message)));
}

function moduleTable(modules) {
  const head = ["module", "shape", "rank", "norm", "largest σ", "effective rank"];
  const rows = modules.map((one) =>
    h(
      "tr",
      {},
      h("td", { class: "mono" }, one.name),
      [
        `${one.out_features} × ${one.in_features}`,
        one.rank,
        numberText(one.norm),
        numberText(one.singular_values[0] ?? 0),
        numberText(one.effective_rank),
      ].map((text) => h("td", { class: "n" }, String(text))),
    )
  );
  return h(
    "details",
    {},
    h("summary", {}, `All ${modules.length} modules`),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Modules" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            head.map((text, index) => h("th", { class: index > 0 ? "n" : "", scope: "col" }, text)),
          ),
        ),
        h("tbody", {}, rows),
      ),
    ),
  );
}
