/** Finds the page for an address, and asks for the token where the server wants one. */
import { api, ApiError } from "./api.js";
import { composePage } from "./compose.js";
import { errorBox, field, h } from "./dom.js";
import { historyPage } from "./history.js";
import { mergePage } from "./merge_view.js";

const main = document.getElementById("main");
let leave = () => {};
let visit = 0;

async function pageFor(path) {
  const [, id] = /^\/merges\/([0-9a-f]+)$/.exec(path) ?? [];
  if (id) return await mergePage(id);
  return { element: path === "/merges" ? await historyPage() : await composePage(), stop() {} };
}

/** Shows the page of the address; the focus goes to its top unless it is the first one. */
async function show({ isFirst = false } = {}) {
  const mine = ++visit;
  const path = location.hash.replace(/^#/, "") || "/";
  leave();
  leave = () => {};
  markCurrent(path);
  let page;
  try {
    page = await pageFor(path);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    page = { element: error.status === 401 ? gate() : errorBox(error.error), stop() {} };
  }
  // Another address was asked for meanwhile.
  if (mine !== visit) return page.stop();
  leave = page.stop;
  main.replaceChildren(page.element);
  const heading = main.querySelector("h1")?.textContent;
  document.title = heading ? `${heading} · LoRA Loom` : "LoRA Loom";
  if (isFirst) return;
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function markCurrent(path) {
  for (const link of document.querySelectorAll(".bar nav a")) {
    const target = link.getAttribute("href").slice(1);
    const isCurrent = target === "/" ? path === "/" : path.startsWith(target);
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Asks for the token. */
function gate() {
  const problem = h("div");
  const token = h("input", { type: "password", autocomplete: "current-password", required: true });
  const form = h(
    "form",
    {
      async onsubmit(event) {
        event.preventDefault();
        try {
          await enter(token.value.trim());
        } catch (error) {
          problem.replaceChildren(errorBox(error.error));
        }
      },
    },
    field(
      "Token",
      token,
      "It was printed when the server first started, and lies in the file token of its data folder.",
    ),
    h("button", { class: "primary wide", type: "submit" }, "Enter"),
    problem,
  );
  return h("div", { class: "gate card" }, h("h1", {}, "This server asks for a token"), form);
}

async function enter(token) {
  await api.openSession(token);
  await show();
  await showDevice();
}

async function showDevice() {
  const place = document.getElementById("device");
  try {
    const { device, device_error: error, merges } = await api.health();
    place.className = `device ${device ? "ready" : error ? "broken" : ""}`;
    const work = [
      merges.running > 0 && `${merges.running} running`,
      merges.queued > 0 && `${merges.queued} waiting`,
    ];
    const name = device ? device.name.replace(/\s*\(.*$/, "") : error ? "no device" : "starting";
    place.textContent = [name, ...work].filter(Boolean).join(" · ");
    place.title = device ? `${device.name}, ${device.class}` : error?.message ?? "";
  } catch (error) {
    // Who may not enter yet sees the gate, and no device.
    const isClosed = error instanceof ApiError && error.status === 401;
    place.className = isClosed ? "device closed" : "device broken";
    place.textContent = isClosed ? "" : "no answer";
    place.title = "";
  }
}

/** A token in the address opens the session and disappears from it. */
async function takeToken() {
  const [, token] = /^#token=(.+)$/.exec(location.hash) ?? [];
  if (!token) return;
  history.replaceState(null, "", "#/");
  await api.openSession(decodeURIComponent(token)).catch(() => {});
}

// A file that misses its place must not replace the page.
for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
addEventListener("hashchange", () => show());
addEventListener("workchange", () => showDevice());
await takeToken();
await show({ isFirst: true });
await showDevice();
setInterval(() => {
  if (!document.hidden) showDevice();
}, 5000);
