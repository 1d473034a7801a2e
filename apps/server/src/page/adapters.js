/** The first step: adapters to drop, to look at and to choose. */
import { api, ApiError, uploadAdapter } from "./api.js";
import { announce, errorBox, h, newId } from "./dom.js";
import { changed, draft } from "./draft.js";
import { spark } from "./drawing.js";
import { adaptersOf, filesOfDrop, filesOfInput } from "./drop.js";
import { bytesText, countText, numberText, plural } from "./format.js";
import { inspection, library, refresh } from "./library.js";

const chosen = (id) => draft.adapters.find((one) => one.id === id);

function choose(id, isOn) {
  draft.adapters = draft.adapters.filter((one) => one.id !== id);
  if (isOn) draft.adapters.push({ id, weight: 1 });
  changed();
}

/** The section with all adapters. `render()` shows what the library has now. */
export function adaptersSection() {
  const list = h("ul", { class: "adapters", "aria-label": "Adapters" });
  const uploads = h("div", { class: "adapters" });
  const count = h("span", { class: "soft" });
  const drop = dropZone(receive);
  const element = h(
    "section",
    { class: "card", "aria-labelledby": "step-adapters" },
    h("header", {}, h("h2", { id: "step-adapters" }, "Adapters"), count),
    drop,
    uploads,
    list,
  );

  async function receive(files) {
    const found = adaptersOf(files);
    if (found.length === 0) {
      announce("No adapter in what was dropped");
      uploads.append(
        note(
          "Nothing in this looks like an adapter.",
          "Drop a PEFT folder, a zip of one, or a .safetensors file.",
        ),
      );
    }
    const ids = await Promise.all(found.map(upload));
    // In the order of the drop, whichever arrived first.
    const place = ({ id }) => ids.indexOf(id);
    const [others, dropped] = [
      draft.adapters.filter((one) => place(one) < 0),
      draft.adapters.filter((one) => place(one) >= 0),
    ];
    draft.adapters = [...others, ...dropped.sort((x, y) => place(x) - place(y))];
    changed();
    render();
  }

  async function upload(one) {
    const bar = h("progress", { max: "1", value: 0, "aria-label": `Uploading ${one.name}` });
    const line = h("div", { class: "upload" }, h("span", {}, one.name), bar);
    uploads.append(line);
    try {
      const adapter = await uploadAdapter(one, (part) => bar.value = part);
      await refresh();
      if (!chosen(adapter.id)) choose(adapter.id, true);
      line.remove();
      render();
      announce(`${adapter.name} is here`);
      return adapter.id;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      line.replaceWith(failed(one, error.error, async (reading) => {
        await upload({ ...one, reading });
        render();
      }));
      return undefined;
    }
  }

  function render() {
    // Chosen ones first, in their order; the others below.
    const order = [...draft.adapters.map(({ id }) => id)];
    const rank = ({ id }) => order.indexOf(id) < 0 ? order.length : order.indexOf(id);
    const adapters = [...library.adapters].sort((x, y) => rank(x) - rank(y));
    const focused = document.activeElement?.dataset?.adapter;
    list.replaceChildren(...adapters.map((adapter) => adapterItem(adapter, render)));
    if (focused) list.querySelector(`[data-adapter="${focused}"]`)?.focus();
    list.hidden = adapters.length === 0;
    drop.classList.toggle("compact", adapters.length > 0);
    count.textContent = adapters.length === 0 ? "" : `${draft.adapters.length} of ${adapters.length} chosen`;
  }

  render();
  return { element, render };
}

function note(message, fix) {
  const line = h(
    "div",
    { class: "upload failed", role: "alert" },
    h("strong", {}, message),
    h("span", { class: "small" }, fix),
  );
  line.append(h("div", {}, closeButton(line)));
  return line;
}

/** The ways out that an error names in the words of the command line, as buttons. */
function waysOut({ fix }, line, again) {
  const [, quoted, plain] = /--drop (?:"([^"]+)"|(\S+))/.exec(fix) ?? [];
  const lost = quoted ?? plain;
  const button = (label, reading) =>
    h("button", {
      type: "button",
      onclick() {
        line.remove();
        again(reading);
      },
    }, label);
  return [
    /--expand\b/.test(fix) && button("Expand it", "&expand=true"),
    lost && button(`Take it without ${lost}`, `&drop=${encodeURIComponent(lost)}`),
  ].filter(Boolean);
}

function failed({ name, reading = "" }, error, again) {
  const line = h("div", { class: "upload failed" }, h("strong", {}, `${name} was refused`), errorBox(error));
  line.append(
    h(
      "div",
      { class: "row" },
      waysOut(error, line, (more) => again(reading + more)),
      closeButton(line),
    ),
  );
  return line;
}

function closeButton(line) {
  return h("button", { type: "button", onclick: () => line.remove() }, "Dismiss");
}

/** Where adapters are dropped; two buttons do the same without a mouse. */
function dropZone(receive) {
  const pick = (properties, label) => {
    const input = h("input", {
      type: "file",
      multiple: true,
      hidden: true,
      ...properties,
      onchange() {
        receive(filesOfInput(input.files));
        input.value = "";
      },
    });
    return [h("button", { type: "button", onclick: () => input.click() }, label), input];
  };
  const zone = h(
    "div",
    {
      class: "drop",
      ondragover(event) {
        event.preventDefault();
        zone.classList.add("over");
      },
      ondragleave: () => zone.classList.remove("over"),
      async ondrop(event) {
        event.preventDefault();
        zone.classList.remove("over");
        receive(await filesOfDrop(event.dataTransfer));
      },
    },
    h(
      "p",
      {},
      h("strong", {}, "Drop adapters here"),
      h("br"),
      h("span", { class: "small soft" }, "PEFT folders, zips of them, or single .safetensors files"),
    ),
    h(
      "div",
      { class: "row" },
      pick({
        "aria-label": "Files of adapters",
        accept: ".safetensors,.json,.zip,.gguf,.npz",
        id: "pick-files",
      }, "Choose files"),
      pick(
        { "aria-label": "Folder of an adapter", webkitdirectory: true, id: "pick-folder" },
        "Choose a folder",
      ),
    ),
  );
  return zone;
}

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

function adapterItem(adapter, render) {
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
