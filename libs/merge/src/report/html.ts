import { ENGINE_TITLES, ENGINES } from "@lora-loom/formats";
import { METHODS } from "../methods/registry.ts";
import { type ModuleFigures, type Quality, similarity } from "./figures.ts";
import { type MergeRecord, moduleQuality } from "./record.ts";
import { COLOURS, htmlPage } from "./page.ts";
import { triedSettings } from "./tried_settings.ts";
import { escapeHtml, rangeOf, type Series, svgPlot } from "./svg.ts";

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
  return `<div class="scroll" tabindex="0"><table><thead><tr><th>adapter</th><th class="n">weight</th><th class="n">cosine</th><th>sha256</th></tr></thead>` +
    `<tbody>${rows.join("")}</tbody></table></div>`;
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
    `<div class="scroll" tabindex="0"><table><thead><tr><th></th>${head}</tr></thead><tbody>${
      rows.join("")
    }</tbody></table></div>`;
}

function cosinePlot(record: MergeRecord, qualities: readonly Quality[]): string {
  const { modules, recipe } = record;
  const series = recipe.adapters.map(({ name }, adapter): Series => ({
    label: name,
    style: `s${adapter % COLOURS.length}`,
    values: modules.map(({ deltas }, index) =>
      deltas.sources.some((source) => source.adapter === adapter)
        ? qualities[index]!.cosine_to_sources[name]!
        : null
    ),
  }));
  const range = rangeOf(series.flatMap(({ values }) => values), 0.1);
  return svgPlot({
    title: "Cosine of the merged delta to each adapter's, by module",
    positions: names(modules),
    series,
    range,
  });
}

function lossPlot({ modules }: MergeRecord, qualities: readonly Quality[]): string {
  const series: Series[] = [{ label: "this merge", style: "s1", values: qualities.map(({ loss }) => loss) }];
  if (qualities.some(({ best_loss }) => best_loss !== null)) {
    series.push({
      label: "best possible at this rank",
      style: "s8",
      values: qualities.map(({ best_loss }) => best_loss),
    });
  }
  const range: [number, number] = [
    0,
    Math.max(0.05, rangeOf(series.flatMap(({ values }) => values), 0.01)[1]),
  ];
  return svgPlot({
    title: "Part of the weighted sum's direction that is lost, by module",
    positions: names(modules),
    series,
    range,
  });
}

/** Figures of the method that every module has as one number, each as a plot. */
function methodPlots({ modules }: MergeRecord): string {
  const keys = Object.keys(modules[0]?.method ?? {}).filter((key) =>
    modules.every(({ method }) => typeof method[key] === "number")
  );
  return keys.map((key) => {
    const values = modules.map(({ method }) => method[key] as number);
    const series = [{ label: key, style: "s0", values }];
    return svgPlot({
      title: `${key.replaceAll("_", " ")}, by module`,
      positions: names(modules),
      series,
      range: rangeOf(values, 0.05),
    });
  }).join("");
}

/** Lists that may happen to have one entry for each adapter, and what has a plot of its own. */
const NOT_OF_ADAPTERS = ["spectrum", "cluster_sizes", "output_error_of_sum", "output_error_of_mean"];

/** Figures that every module has once for each adapter, such as output errors: a plot each, a line an adapter. */
function adapterPlots({ modules, recipe }: MergeRecord): string {
  const isPerAdapter = (figure: unknown): figure is readonly number[] =>
    Array.isArray(figure) && figure.length === recipe.adapters.length;
  const keys = Object.keys(modules[0]?.method ?? {}).filter((key) =>
    !NOT_OF_ADAPTERS.includes(key) && modules.every(({ method }) => isPerAdapter(method[key]))
  );
  return keys.map((key) => {
    const series = recipe.adapters.map(({ name }, adapter): Series => ({
      label: name,
      style: `s${adapter % COLOURS.length}`,
      values: modules.map(({ method }) => (method[key] as readonly number[])[adapter]!),
    }));
    return svgPlot({
      title: `${key.replaceAll("_", " ")}, by module`,
      positions: names(modules),
      series,
      range: rangeOf(series.flatMap(({ values }) => values), 0.05),
    });
  }).join("");
}

/** What a module's name ends in, such as `q_proj`. */
function kindOf(name: string): string {
  return name.slice(name.lastIndexOf(".") + 1);
}

/** The number of the layer that a module is in: the first number in its name. */
function layerOf(name: string): number | undefined {
  const match = /(?:^|[._])(\d+)(?=[._])/.exec(name);
  return match ? Number(match[1]) : undefined;
}

/** What is lost, or the output error where it was measured, as a mean over the modules of each layer. */
function layerPlot({ modules }: MergeRecord, qualities: readonly Quality[]): string {
  const layers = [...new Set(modules.flatMap(({ name }) => layerOf(name) ?? []))].sort((x, y) => x - y);
  if (layers.length < 2) return "";
  const isMeasured = modules.every(({ method }) => Array.isArray(method.output_error));
  const valueOf = (index: number) =>
    isMeasured ? meanOf(modules[index]!.method.output_error as readonly number[]) : qualities[index]!.loss;
  const values = layers.map((layer) =>
    meanOf([...modules.keys()].filter((index) => layerOf(modules[index]!.name) === layer).map(valueOf))
  );
  return svgPlot({
    title: `${
      isMeasured ? "Output error" : "Part of the weighted sum's direction that is lost"
    }, mean of each layer's modules`,
    positions: layers.map((layer) => `layer ${layer}`),
    series: [{ label: "this merge", style: "s1", values }],
    range: [0, Math.max(0.05, rangeOf(values, 0.01)[1])],
    ends: [`layer ${layers[0]}`, `layer ${layers.at(-1)}`],
  });
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Output errors on the calibration inputs, mean over the adapters: before, as sum and mean of the deltas, and after. */
function beforeAndAfterPlot({ modules }: MergeRecord): string {
  const figures = [["this merge", "output_error"], ["sum of the deltas", "output_error_of_sum"], [
    "their mean",
    "output_error_of_mean",
  ]] as const;
  if (!modules.every(({ method }) => figures.every(([, key]) => Array.isArray(method[key])))) return "";
  const series = figures.map(([label, key], index): Series => ({
    label,
    style: `s${[0, 1, 8][index]}`,
    values: modules.map(({ method }) => meanOf(method[key] as readonly number[])),
  }));
  return svgPlot({
    title:
      "Relative output error on the calibration inputs, mean over the adapters, by module: 1 is no adapter",
    positions: names(modules),
    series,
    range: [0, Math.max(1, rangeOf(series.flatMap(({ values }) => values), 0.05)[1])],
  });
}

/** How many units LEGO's clusters hold, largest first, by kind of module: the mean over its modules. */
function clusterPlot({ modules }: MergeRecord): string {
  const sizes = modules.flatMap(({ name, method: { cluster_sizes: own } }) =>
    Array.isArray(own) ? [{ kind: kindOf(name), sizes: [...own as number[]].sort((x, y) => y - x) }] : []
  );
  if (sizes.length === 0) return "";
  const length = Math.max(...sizes.map(({ sizes }) => sizes.length));
  const kinds = [...new Set(sizes.map(({ kind }) => kind))];
  const series = kinds.map((label, index): Series => {
    const own = sizes.filter(({ kind }) => kind === label);
    const mean = (i: number) => meanOf(own.map(({ sizes }) => sizes[i] ?? 0));
    return {
      label,
      style: `s${index % COLOURS.length}`,
      values: Array.from({ length }, (_, i) => mean(i)),
    };
  });
  return svgPlot({
    title: "Units in each cluster, largest first, by kind of module",
    positions: Array.from({ length }, (_, i) => `cluster ${i + 1}`),
    series,
    range: [0, rangeOf(series.flatMap(({ values }) => values), 1)[1]],
    ends: ["largest", `number ${length}`],
  });
}

/** Singular values relative to the first, by kind of module: the mean over its modules, where the method reports them. */
function spectrumPlot({ modules }: MergeRecord): string {
  const spectra = modules.flatMap(({ name, method: { spectrum } }) =>
    Array.isArray(spectrum) && spectrum[0] > 0 ? [{ kind: kindOf(name), spectrum: spectrum as number[] }] : []
  );
  if (spectra.length === 0) return "";
  const length = Math.max(...spectra.map(({ spectrum }) => spectrum.length));
  const positions = Array.from({ length }, (_, i) => `singular value ${i + 1}`);
  const kinds = [...new Set(spectra.map(({ kind }) => kind))];
  const series = kinds.map((label, index): Series => {
    const own = spectra.filter(({ kind }) => kind === label).map(({ spectrum }) => spectrum);
    const mean = (i: number) =>
      own.reduce((sum, values) => sum + (values[i] ?? 0) / values[0]!, 0) / own.length;
    return { label, style: `s${index % COLOURS.length}`, values: positions.map((_, i) => mean(i)) };
  });
  return svgPlot({
    title: "Singular values of the result before it was cut, relative to the largest, by kind of module",
    positions,
    series,
    range: [0, 1],
    ends: ["largest", `number ${length}`],
  });
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
    `<div class="scroll" tabindex="0"><table><thead><tr><th>adapter</th><th class="n">this merge</th><th class="n">sum of the deltas</th>` +
    `<th class="n">their mean</th></tr></thead><tbody>${rows.join("")}${
      row("mean", kinds.map(({ mean }) => mean))
    }</tbody></table></div>`;
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
    `<div class="scroll" tabindex="0"><table><thead><tr><th>setting</th><th class="n">agreement</th><th class="n">difference</th><th></th></tr></thead>` +
    `<tbody>${rows.join("")}</tbody></table></div>`;
}

/** The loss of every step and the agreement along the way, or why there is neither. */
function refinementSection({ refinement }: MergeRecord): string {
  if (!refinement) return "";
  const { failure, losses, state_losses, agreement, kept_step, steps_done, steps } = refinement;
  if (failure) {
    return `<h2>Refinement</h2><p>It failed, and this is the merge before it: ${
      escapeHtml(failure.message)
    }</p>`;
  }
  const positions = losses.map((_, index) => `step ${index + 1}`);
  const lossPlot = svgPlot({
    title: "Loss of each step's minibatch",
    positions,
    series: [
      { label: "loss", style: "s0", values: losses },
      { label: "hidden states alone", style: "s1", values: state_losses },
    ],
    range: [0, 1.05 * Math.max(...losses, 1e-9)],
    ends: ["first step", `step ${losses.length}`],
  });
  const agreementPlot = agreement.length < 2 ? "" : svgPlot({
    title: "Agreement with the adapters on prompts kept out",
    positions: agreement.map(({ step }) => `after step ${step}`),
    series: [{ label: "agreement", style: "s2", values: agreement.map(({ mean }) => mean) }],
    range: rangeOf(agreement.map(({ mean }) => mean), 0.1),
    ends: ["before", `step ${agreement.at(-1)!.step}`],
  });
  const kept = kept_step === 0
    ? "No step agreed better with the adapters than the merge before, which was kept."
    : `The factors after step ${kept_step} were kept.`;
  return `<h2>Refinement</h2><p>After the merge, ${steps_done} of ${steps} steps of training without labels: ` +
    `the factors of all modules were fitted to what each adapter makes of its own prompts. ${kept}</p>` +
    (losses.length > 0 ? lossPlot : "") + agreementPlot;
}

/** Where the merged adapter loads as it is, and why not elsewhere. */
function servingTable({ serving }: MergeRecord): string {
  const rows = ENGINES.map((engine) => {
    const { ok, reasons, notes } = serving[engine];
    return `<tr><td>${escapeHtml(ENGINE_TITLES[engine])}</td><td>${ok ? "yes" : "no"}</td><td class="text">${
      escapeHtml([...reasons, ...notes].join("; "))
    }</td></tr>`;
  });
  return `<h2>Where it loads</h2><div class="scroll" tabindex="0"><table><thead><tr><th>program</th><th>loads it</th><th></th></tr></thead>` +
    `<tbody>${rows.join("")}</tbody></table></div>`;
}

function names(modules: readonly ModuleFigures[]): string[] {
  return modules.map(({ name }) => name);
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
  return `<div class="scroll" tabindex="0"><table><thead><tr><th>module</th>${header}</tr></thead><tbody>${
    rows.join("")
  }</tbody></table></div>`;
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
${cosinePlot(record, qualities)}
${record.quality.output_error ? "" : lossPlot(record, qualities)}
${layerPlot(record, qualities)}
${beforeAndAfterPlot(record)}
${spectrumPlot(record)}
${clusterPlot(record)}
${adapterPlots(record)}
${methodPlots(record)}
${modulesTable(record, qualities)}
${servingTable(record)}`;
  return htmlPage(title, body, `Merge report: ${title}`);
}
