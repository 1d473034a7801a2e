/** Where adapters are dropped, and what is said of those that were refused. */
import { errorBox, h } from "./dom.js";
import { filesOfDrop, filesOfInput } from "./drop.js";

/** A line that says that something was refused, and what to do. */
export function note(message, fix) {
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

/** The same for an adapter; `again` is called with another way to read it. */
export function failed({ name, reading = "" }, error, again) {
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
export function dropZone(receive) {
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
