/** All merges, the newest first. */
import { api } from "./api.js";
import { h } from "./dom.js";
import { plural, secondsText, timeText } from "./format.js";

function factsText({ request, created, result }) {
  return [
    request.method,
    plural(request.adapters.length, "adapter"),
    result && `rank ${result.rank}`,
    result && secondsText(result.seconds.total),
    timeText(created),
  ].filter(Boolean).join(" · ");
}

function entry(merge) {
  return h(
    "li",
    {},
    h(
      "a",
      { class: "card", href: `#/merges/${merge.id}` },
      h("span", { class: "name" }, merge.name),
      h("span", { class: `state ${merge.state}` }, merge.state),
      h("span", { class: "soft small" }, factsText(merge)),
    ),
  );
}

export async function historyPage() {
  const list = h("ul", { class: "history" });
  const more = h("button", { type: "button", onclick: read }, "Older merges");
  const empty = h("p", { class: "soft" }, "No merge yet. ", h("a", { href: "#/" }, "Start one"), ".");
  let last;

  async function read() {
    const merges = await api.merges(last);
    list.append(...merges.map(entry));
    last = merges.at(-1)?.id ?? last;
    more.hidden = merges.length < 50;
    empty.hidden = list.childElementCount > 0;
  }

  await read();
  return h(
    "div",
    {},
    h("div", { class: "intro" }, h("h1", {}, "Merges")),
    empty,
    list,
    h("p", { class: "intro" }, more),
  );
}
