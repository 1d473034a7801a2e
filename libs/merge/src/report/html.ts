import { ENGINE_TITLES, ENGINES } from "@lora-loom/formats";
import { METHODS } from "../methods/registry.ts";
import { type Quality, similarity } from "./figures.ts";
import { type MergeRecord, moduleQuality } from "./record.ts";
import { htmlPage, scrollingTable } from "./page.ts";
import { modulePlots } from "./plots.ts";
import { refinementSection } from "./refinement_section.ts";
import { triedSettings } from "./tried_settings.ts";
import { escapeHtml } from "./svg.ts";

function definition(rows: readonly (readonly [term: string, text: string])[]): string {
  return `<dl>${
    rows.map(([term, text]) => `<dt>${escapeHtml(term)}</dt><dd>${escapeHtml(text)}</dd>`).join("")
  }</dl>`;
}

/** Distance from the weighted sum, or output errors where the method aims at outputs and not at the sum. */
function qualityLines({ loss, best_loss, output_error }: Quality): (readonly [string, string])[] {
  if (output_error) {
    return [
      ["output error", output_error.merged.toFixed(4)],
      ["of the sum, of the mean", `${output_error.sum.toFixed(4)}, ${output_error.mean.toFixed(4)}`],
    ];
  }
  const best = best_loss === null ? [] : [["best possible at this rank", best_loss.toFixed(5)] as const];
  return [["lost of the sum", loss.toFixed(5)], ...best];
}

function overview(
  { recipe, rank, device, quality, seconds, modules, created, versions }: MergeRecord,
): string {
  const parameters = Object.entries(recipe.parameters).map(([key, value]) => `${key} ${value}`).join(", ");
  return definition([
    ["method", `${recipe.method}: ${METHODS.get(recipe.method)!.title}`],
    ["parameters", parameters || "none"],
    ["rank", `${rank}`],
    ["modules", `${modules.length}`],
    ["device", `${device.name} (${device.backend})`],
    ["seconds", Object.entries(seconds).map(([part, value]) => `${part} ${value.toFixed(2)}`).join(", ")],
    ["cosine to the sum", quality.cosine_to_sum.toFixed(5)],
    ...qualityLines(quality),
    ["made", `${created} by LoRA Loom ${versions["lora-loom"]}`],
  ]);
}

function inputsTable({ recipe, quality, inputs }: MergeRecord): string {
  const rows = recipe.adapters.map(({ name, weight }, index) => {
    const hash = inputs[index]!.files.map(({ sha256 }) => sha256.slice(0, 12)).join(" ");
    return `<tr><td>${escapeHtml(name)}</td><td class="n">${weight}</td>` +
      `<td class="n">${quality.cosine_to_sources[name]!.toFixed(4)}</td><td>${hash}</td></tr>`;
  });
  return scrollingTable(
    '<th>adapter</th><th class="n">weight</th><th class="n">cosine</th><th>sha256</th>',
    rows,
  );
}

/** How alike the adapters are: cosines of their deltas over all modules. */
function similarityTable({ recipe, modules }: MergeRecord): string {
  const { adapters } = recipe;
  if (adapters.length < 2) return "";
  const deltas = modules.map((module) => module.deltas);
  const head = adapters.map(({ name }) => `<th class="n">${escapeHtml(name)}</th>`).join("");
  const rows = adapters.map(({ name }, s) => {
    const cells = adapters.map((_, t) => {
      const cosine = s === t ? 1 : similarity(deltas, s, t);
      const strength = Math.round(100 * Math.min(1, Math.abs(cosine ?? 0)));
      const shade = `background: color-mix(in srgb, ${(cosine ?? 0) < 0 ? "#d1495b" : "#2f6fde"} ${
        strength / 2
      }%, transparent)`;
      return `<td class="n" style="${shade}">${cosine === null ? "–" : cosine.toFixed(3)}</td>`;
    });
    return `<tr><th>${escapeHtml(name)}</th>${cells.join("")}</tr>`;
  });
  return `<h3>How alike they are</h3><p>Cosine of two adapters' deltas over all modules: 0 is unrelated, 1 the same direction, below 0 contrary.</p>` +
    scrollingTable(`<th></th>${head}`, rows);
}

/** How often the merge, the sum and the mean of the deltas answer as each adapter does. */
function agreementSection({ quality: { agreement } }: MergeRecord): string {
  if (!agreement) return "";
  const percent = (share: number) => `<td class="n">${(100 * share).toFixed(0)} %</td>`;
  const row = (name: string, shares: readonly number[]) =>
    `<tr><td>${escapeHtml(name)}</td>${shares.map(percent).join("")}</tr>`;
  const kinds = [agreement.merged, agreement.sum, agreement.mean];
  const rows = Object.keys(agreement.merged.tasks).map((name) =>
    row(name, kinds.map(({ tasks }) => tasks[name]!))
  );
  return `<h2>Agreement</h2><p>How often a prompt that no calibration saw is answered exactly as by the adapter itself.</p>` +
    scrollingTable(
      '<th>adapter</th><th class="n">this merge</th><th class="n">sum of the deltas</th><th class="n">their mean</th>',
      [...rows, row("mean", kinds.map(({ mean }) => mean))],
    );
}

/** What a method chose among by agreement, and what it kept. */
function triedSection({ quality: { tried } }: MergeRecord): string {
  if (!tried) return "";
  const rows = triedSettings(tried).map(({ text, agreement, difference, kept }) =>
    `<tr><td>${escapeHtml(text)}</td><td class="n">${
      (100 * agreement).toFixed(1)
    } %</td><td class="n">${difference}</td><td>${kept ? "kept" : ""}</td></tr>`
  );
  return `<h3>Settings tried</h3><p>The one that agreed most was kept, the first of equals; one with the metric in place of one without only by ` +
    `more than two standard errors. Differences are from the first, with their standard error: where that is larger, more prompts kept out would say more.</p>` +
    scrollingTable(
      '<th>setting</th><th class="n">agreement</th><th class="n">difference</th><th></th>',
      rows,
    );
}

/** Where the merged adapter loads as it is, and why not elsewhere. */
function servingTable({ serving }: MergeRecord): string {
  const rows = ENGINES.map((engine) => {
    const { ok, reasons, notes } = serving[engine];
    return `<tr><td>${escapeHtml(ENGINE_TITLES[engine])}</td><td>${ok ? "yes" : "no"}</td><td class="text">${
      escapeHtml([...reasons, ...notes].join("; "))
    }</td></tr>`;
  });
  return "<h2>Where it loads</h2>" + scrollingTable("<th>program</th><th>loads it</th><th></th>", rows);
}

function modulesTable({ modules }: MergeRecord, qualities: readonly Quality[]): string {
  const rows = modules.map((module, index) => {
    const { cosine_to_sum, loss, best_loss } = qualities[index]!;
    const numbers = [
      module.rank,
      cosine_to_sum.toFixed(4),
      loss.toFixed(4),
      best_loss?.toFixed(4) ?? "–",
      module.seconds.toFixed(3),
    ];
    return `<tr><td>${
      escapeHtml(module.name)
    }</td><td class="n">${module.outFeatures} × ${module.inFeatures}</td>` +
      numbers.map((number) => `<td class="n">${number}</td>`).join("") + "</tr>";
  });
  const header = ["shape", "rank", "cosine to sum", "lost", "best", "seconds"].map((text) =>
    `<th class="n">${text}</th>`
  ).join("");
  return scrollingTable(`<th>module</th>${header}`, rows);
}

/** The text of `report.html`: one file without any request, for any screen, light and dark. */
export function htmlReport(record: MergeRecord): string {
  const title = record.recipe.adapters.map(({ name }) => name).join(" + ");
  const qualities = record.modules.map((module) => moduleQuality(module, record.recipe));
  const warnings = record.warnings.map(({ message, where }) =>
    `<li>${escapeHtml(`${message} (${where})`)}</li>`
  ).join("");
  const body = `${overview(record)}
<h2>Adapters</h2>
${inputsTable(record)}
${similarityTable(record)}
${agreementSection(record)}
${triedSection(record)}
${refinementSection(record)}
${warnings ? `<h2>Warnings</h2><ul>${warnings}</ul>` : ""}
<h2>Modules</h2>
${modulePlots(record, qualities)}
${modulesTable(record, qualities)}
${servingTable(record)}`;
  return htmlPage(title, body, `Merge report: ${title}`);
}
