/** Small helpers to build and change the document. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element. Properties that start with `on` are listeners; `class`, `data-…`, `aria-…` and other attributes are
 * set as such; `undefined`, `null` and `false` leave one out.
 */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for an element of a drawing. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(3).filter((child) => child !== undefined && child !== null && child !== false),
  );
  return element;
}

/** Says something to those who listen instead of looking. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

let count = 0;

/** An id that no other element has. */
export function newId() {
  return `e${++count}`;
}

/** A label above a control, with help below it. */
export function field(label, control, help) {
  control.id ||= newId();
  if (!help) return h("div", { class: "field" }, h("label", { for: control.id }, label), control);
  const helpId = newId();
  control.setAttribute("aria-describedby", helpId);
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id }, label),
    control,
    h("p", { class: "help", id: helpId }, help),
  );
}

/** A text to look at and to copy. */
export function copyable(title, text) {
  const button = h("button", {
    class: "plain",
    type: "button",
    async onclick() {
      await copy(pre.textContent);
      button.textContent = "Copied";
      announce(`${title} copied`);
      setTimeout(() => button.textContent = "Copy", 1500);
    },
  }, "Copy");
  button.setAttribute("aria-label", `Copy ${title}`);
  const pre = h("pre", { tabindex: "0", role: "region", "aria-label": title }, text);
  const element = h("div", { class: "copyable" }, h("div", {}, h("h3", {}, title), button), pre);
  return { element, set: (value) => pre.textContent = value };
}

/** The clipboard is there on secure origins only; a selection works everywhere. */
async function copy(text) {
  if (navigator.clipboard) return await navigator.clipboard.writeText(text);
  const area = h("textarea", { class: "unseen", value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** An error as the API gives it. */
export function errorBox({ code, message, fix, where }) {
  return h(
    "div",
    { class: "error", role: "alert" },
    h("p", {}, h("strong", {}, message)),
    fix && h("p", {}, fix),
    h("p", { class: "small soft mono" }, where ? `${code} · ${where}` : code),
  );
}
