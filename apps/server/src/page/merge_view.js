/** One merge: how far it is, then what came of it. */
import { api, ApiError, fetchArchive } from "./api.js";
import { announce, copyable, errorBox, h } from "./dom.js";
import { takeUp } from "./draft.js";
import { bytesText, plural, secondsText, shareText, timeText } from "./format.js";
import { library, nameOf, readingOf, refresh } from "./library.js";
import { commandLine, recipeYaml } from "./recipe.js";

const isOver = ({ state }) => state !== "queued" && state !== "running";

/** The page of a merge; `stop()` ends what it listens to. */
export async function mergePage(id) {
  const [first] = await Promise.all([api.merge(id), refresh()]);
  const body = h("div", { class: "merge" });
  const state = h("span", { class: "state" });
  const tools = h("div", { class: "row" });
  const element = h(
    "div",
    { class: "merge" },
    h("div", { class: "title intro" }, h("h1", {}, first.name), state, tools),
    body,
  );
  let progress = progressView();
  let source;
  let shown;

  function show(merge) {
    state.className = `state ${merge.state}`;
    state.textContent = merge.state;
    tools.replaceChildren(...toolButtons(merge));
    if (isOver(merge)) {
      source?.close();
      body.replaceChildren(...outcome(merge));
      dispatchEvent(new Event("workchange"));
      if (shown) announce(`The merge is ${merge.state}`);
    } else {
      if (shown?.state !== merge.state) {
        progress = progressView();
        body.replaceChildren(progress.element, recipeCard(merge));
      }
      progress.waiting(merge);
      if (merge.progress) progress.take(merge.progress);
    }
    shown = merge;
  }

  show(first);
  if (!isOver(first)) {
    source = new EventSource(`/api/merges/${id}/events`);
    source.addEventListener("merge", ({ data }) => show(JSON.parse(data)));
    source.addEventListener("progress", ({ data }) => progress.take(JSON.parse(data)));
  }
  return { element, stop: () => source?.close() };
}

function toolButtons(merge) {
  const again = h("button", {
    type: "button",
    onclick() {
      takeUp(merge.request);
      location.hash = "#/";
    },
  }, isOver(merge) ? "Change and run again" : "Use as a new draft");
  const end = h("button", {
    type: "button",
    class: "danger",
    async onclick() {
      if (isOver(merge) && !confirm(`Delete ${merge.name} and its files from this server?`)) return;
      end.disabled = true;
      const left = await api.deleteMerge(merge.id);
      if (!left) location.hash = "#/merges";
    },
  }, isOver(merge) ? "Delete" : "Cancel");
  return [again, end];
}

/** Progress as a bar, a line of text and a cloth with a cell for each module. */
function progressView() {
  const bar = h("progress", { max: "1", "aria-label": "Progress" });
  const line = h("p", {}, "Waiting for the device");
  const left = h("p", { class: "soft small" });
  const cloth = h("div", { class: "cloth", "aria-hidden": "true" });

  function weave(done, total) {
    if (cloth.childElementCount !== total) {
      cloth.replaceChildren(
        ...Array.from({ length: total }, (_, index) => h("i", { class: `t${index % 7 % 10}` })),
      );
    }
    [...cloth.children].forEach((cell, index) => cell.classList.toggle("woven", index < done));
  }

  return {
    element: h("section", { class: "card methods", "aria-label": "Progress" }, bar, line, left, cloth),
    waiting(merge) {
      if (merge.state !== "queued") return;
      line.textContent = merge.waiting > 0
        ? `${plural(merge.waiting, "merge")} before this one`
        : "Next in line";
    },
    take(event) {
      if (event.type === "start") {
        line.textContent = `${plural(event.modules, "module")} at rank ${event.rank} on ${event.device}`;
        weave(0, event.modules);
      } else if (event.type === "note") {
        line.textContent = event.message;
      } else if (event.type === "needs") {
        const { device_bytes, host_bytes } = event.needs;
        left.textContent = `Needs about ${bytesText(device_bytes)} on the device, ${
          bytesText(host_bytes)
        } of memory`;
      } else if (event.type === "stage") {
        bar.value = event.total > 0 ? event.done / event.total : 0;
        line.textContent = `${event.stage}: ${event.done} of ${event.total}`;
        const rest = event.remaining === null ? "" : `, about ${secondsText(event.remaining)} left of this`;
        left.textContent = `${secondsText(event.elapsed)} so far${rest}`;
      } else if (event.type === "module") {
        bar.value = event.done / event.total;
        line.textContent = `Module ${event.done} of ${event.total}: ${event.name}`;
        left.textContent = `${secondsText(event.elapsed)} so far, about ${secondsText(event.remaining)} left`;
        weave(event.done, event.total);
      } else {
        bar.value = 1;
        line.textContent = "Writing the result";
        left.textContent = "";
      }
    },
  };
}

function recipeCard({ request }) {
  return h(
    "section",
    { class: "card methods", "aria-label": "Recipe" },
    copyable("recipe.yaml", recipeYaml(request, nameOf, readingOf)).element,
    copyable("Command line", commandLine()).element,
  );
}

function outcome(merge) {
  const { state, error, result } = merge;
  if (state === "failed") return [errorBox(error), recipeCard(merge)];
  if (state === "cancelled") {
    return [
      h("p", { class: "note" }, "This merge was cancelled. Nothing of it was kept."),
      recipeCard(merge),
    ];
  }
  return [
    h("div", { class: "two" }, figuresCard(merge, result), qualityCard(merge, result)),
    h("div", { class: "two" }, filesCard(merge, result), recipeCard(merge)),
    warningsList(result.warnings),
    reportCard(merge),
  ].filter(Boolean);
}

const figure = (name, value, extra) =>
  h("div", {}, h("dt", {}, name), h("dd", {}, value, extra && h("small", {}, ` ${extra}`)));

function figuresCard({ request, finished }, { rank, modules, seconds, device, bytes }) {
  const method = library.methods.find(({ name }) => name === request.method);
  return h(
    "section",
    { class: "card", "aria-labelledby": "figures" },
    h("header", {}, h("h2", { id: "figures" }, "Merged"), h("span", { class: "soft" }, timeText(finished))),
    h(
      "dl",
      { class: "figures" },
      figure("method", request.method, method && method.title !== request.method ? method.title : undefined),
      figure("rank", String(rank)),
      figure("modules", String(modules)),
      figure("time", secondsText(seconds.total)),
      figure("size", bytesText(bytes)),
      figure("device", device.name.replace(/\s*\(.*$/, ""), device.backend),
    ),
  );
}

function qualityCard({ request }, { quality }) {
  const names = Object.entries(quality.cosine_to_sources);
  const rows = names.flatMap(([name, cosine], index) => {
    const fill = h("i", {});
    fill.style.width = `${Math.max(0, 100 * cosine)}%`;
    return [
      h("span", {}, name),
      h("span", { class: `bar-track t${index % 10}` }, fill),
      h("span", { class: "n" }, cosine.toFixed(3)),
    ];
  });
  const best = quality.best_loss;
  const agreement = quality.agreement?.merged;
  return h(
    "section",
    { class: "card methods", "aria-labelledby": "quality" },
    h("header", {}, h("h2", { id: "quality" }, "How near it is")),
    h(
      "p",
      { class: "small soft" },
      "Cosine of the merged change to each adapter's own: 1 is the same direction, 0 has nothing to do with it.",
    ),
    h("div", { class: "bars" }, rows),
    h(
      "dl",
      { class: "figures" },
      figure("cosine to the sum", shareText(quality.cosine_to_sum)),
      figure(
        "lost of the sum",
        shareText(quality.loss),
        best === null ? undefined : `best ${shareText(best)}`,
      ),
      agreement &&
        figure("agreement", `${(100 * agreement.mean).toFixed(1)} %`, "with each adapter on its own prompts"),
    ),
    request.adapters.length === 1 &&
      h("p", { class: "note" }, "With one adapter this shows what cutting its rank costs."),
  );
}

/** The result in the layouts of other programs. */
function otherLayouts({ id, request }) {
  const problem = h("div");
  const save = async (format, button) => {
    problem.replaceChildren();
    button.disabled = true;
    try {
      const { name, blob } = await fetchArchive(id, format);
      const link = h("a", { href: URL.createObjectURL(blob), download: name });
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      problem.replaceChildren(errorBox(error.error));
    }
    button.disabled = false;
  };
  const formats = library.formats.filter((format) => format !== (request.format ?? "peft"));
  return h(
    "details",
    {},
    h("summary", {}, "In another program's layout"),
    h(
      "div",
      { class: "row" },
      formats.map((format) =>
        h("button", { type: "button", onclick: ({ target }) => save(format, target) }, format)
      ),
    ),
    problem,
  );
}

function filesCard(merge, { files }) {
  const { id } = merge;
  const address = (name) => `/api/merges/${id}/files/${encodeURIComponent(name)}`;
  return h(
    "section",
    { class: "card methods", "aria-labelledby": "files" },
    h("header", {}, h("h2", { id: "files" }, "Files")),
    h(
      "a",
      { class: "button primary wide", href: `/api/merges/${id}/archive.zip`, download: "" },
      "Download as zip",
    ),
    h(
      "table",
      {},
      h(
        "tbody",
        {},
        files.map(({ name, bytes }) =>
          h(
            "tr",
            {},
            h("td", {}, h("a", { href: address(name), download: name }, name)),
            h("td", { class: "n" }, bytesText(bytes)),
          )
        ),
      ),
    ),
    otherLayouts(merge),
  );
}

function warningsList(warnings) {
  if (warnings.length === 0) return undefined;
  return h("ul", { class: "methods" }, warnings.map(({ message }) => h("li", { class: "note" }, message)));
}

function reportCard({ id }) {
  const address = `/api/merges/${id}/files/report.html`;
  const frame = h("iframe", { src: address, title: "Merge report", onload: () => fitHeight(frame) });
  return h(
    "section",
    { class: "card", "aria-labelledby": "report" },
    h(
      "header",
      {},
      h("h2", { id: "report" }, "Report"),
      h(
        "span",
        { class: "soft" },
        h("a", { href: address, target: "_blank", rel: "noopener" }, "Open by itself"),
      ),
    ),
    frame,
  );
}

/** Makes a frame as high as what it shows, whenever that changes. */
function fitHeight(frame) {
  const { documentElement: root } = frame.contentDocument;
  new ResizeObserver(() => {
    const borders = frame.offsetHeight - frame.clientHeight;
    frame.style.height = `${Math.ceil(root.getBoundingClientRect().height) + borders}px`;
  }).observe(root);
}
