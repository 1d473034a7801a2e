/** Plots of a report: figures by module, by layer, and by kind of module. */
import type { ModuleFigures, Quality } from "./figures.ts";
import { seriesStyle } from "./page.ts";
import type { MergeRecord } from "./record.ts";
import { rangeOf, type Series, svgPlot } from "./svg.ts";

/** All plots of a report but those of its refinement. */
export function modulePlots(record: MergeRecord, qualities: readonly Quality[]): string {
  return [
    cosinePlot(record, qualities),
    record.quality.output_error ? "" : lossPlot(record, qualities),
    layerPlot(record, qualities),
    beforeAndAfterPlot(record),
    spectrumPlot(record),
    clusterPlot(record),
    adapterPlots(record),
    methodPlots(record),
  ].join("\n");
}

function cosinePlot(record: MergeRecord, qualities: readonly Quality[]): string {
  const { modules, recipe } = record;
  const series = recipe.adapters.map(({ name }, adapter): Series => ({
    label: name,
    style: seriesStyle(adapter),
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
      style: seriesStyle(adapter),
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

/** Figures of one module, in an order that means the same in all modules of its kind. */
interface KindOfModule {
  readonly kind: string;
  readonly values: readonly number[];
}

/** The mean over the modules of each kind, place by place; what a module lacks counts as 0. */
function meansByKind(modules: readonly KindOfModule[]): Series[] {
  const length = Math.max(...modules.map(({ values }) => values.length));
  const kinds = [...new Set(modules.map(({ kind }) => kind))];
  return kinds.map((label, index): Series => {
    const own = modules.filter(({ kind }) => kind === label);
    const values = Array.from({ length }, (_, i) => meanOf(own.map(({ values }) => values[i] ?? 0)));
    return { label, style: seriesStyle(index), values };
  });
}

/** How many units LEGO's clusters hold, largest first, by kind of module: the mean over its modules. */
function clusterPlot({ modules }: MergeRecord): string {
  const sizes = modules.flatMap(({ name, method: { cluster_sizes: own } }) =>
    Array.isArray(own) ? [{ kind: kindOf(name), values: [...own as number[]].sort((x, y) => y - x) }] : []
  );
  if (sizes.length === 0) return "";
  const series = meansByKind(sizes);
  const { length } = series[0]!.values;
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
    Array.isArray(spectrum) && spectrum[0] > 0
      ? [{ kind: kindOf(name), values: (spectrum as number[]).map((value) => value / spectrum[0]) }]
      : []
  );
  if (spectra.length === 0) return "";
  const series = meansByKind(spectra);
  const { length } = series[0]!.values;
  return svgPlot({
    title: "Singular values of the result before it was cut, relative to the largest, by kind of module",
    positions: Array.from({ length }, (_, i) => `singular value ${i + 1}`),
    series,
    range: [0, 1],
    ends: ["largest", `number ${length}`],
  });
}

function names(modules: readonly ModuleFigures[]): string[] {
  return modules.map(({ name }) => name);
}
