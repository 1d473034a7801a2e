/** The first step: adapters to drop, to look at and to choose. */
import { adapterItem } from "./adapter_item.js";
import { ApiError, uploadAdapter } from "./api.js";
import { announce, h } from "./dom.js";
import { changed, choose, chosen, draft } from "./draft.js";
import { adaptersOf } from "./drop.js";
import { library, refresh } from "./library.js";
import { dropZone, failed, note } from "./uploads.js";

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
