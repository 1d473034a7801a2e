import { htmlOpening, htmlPage, scrollingTable, seriesStyle } from "../report/page.ts";
import { escapeHtml, rangeOf, type Series, svgPlot } from "../report/svg.ts";
import type { ComparedMerge } from "./compare_merges.ts";

/** A compared merge with what an evaluation said of it: accuracy by task. */
export interface ScoredMerge extends ComparedMerge {
  readonly accuracy?: Readonly<Record<string, number>>;
}

/** The mean over the tasks; undefined without any. */
export function meanAccuracy({ accuracy }: ScoredMerge): number | undefined {
  const values = Object.values(accuracy ?? {});
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Numbers of one kind that all merges have, to show and to plot. */
interface Column {
  readonly title: string;
  value(merge: ScoredMerge): number | undefined;
  readonly digits: number;
}

function columnsOf(merges: readonly ScoredMerge[]): Column[] {
  const adapters = Object.keys(merges[0]!.quality.cosine_to_sources);
  const tasks = Object.keys(merges[0]!.accuracy ?? {});
  return [
    { title: "rank", value: ({ rank }) => rank, digits: 0 },
    { title: "parameters", value: ({ parameters }) => parameters, digits: 0 },
    { title: "seconds", value: ({ seconds }) => seconds, digits: 2 },
    { title: "lost of the sum", value: ({ quality }) => quality.loss, digits: 4 },
    ...adapters.map((name): Column => ({
      title: `cosine to ${name}`,
      value: ({ quality }) => quality.cosine_to_sources[name],
      digits: 4,
    })),
    ...tasks.map((name): Column => ({
      title: `accuracy on ${name}`,
      value: ({ accuracy }) => accuracy?.[name],
      digits: 4,
    })),
    ...(tasks.length > 1 ? [{ title: "mean accuracy", value: meanAccuracy, digits: 4 }] : []),
  ];
}

function comparisonTable(merges: readonly ScoredMerge[], columns: readonly Column[]): string {
  const header = columns.map(({ title }) => `<th class="n">${escapeHtml(title)}</th>`).join("");
  const rows = merges.map((merge) => {
    const cells = columns.map(({ value, digits }) =>
      `<td class="n">${value(merge)?.toFixed(digits) ?? "–"}</td>`
    );
    return `<tr><td>${escapeHtml(merge.label)}</td>${cells.join("")}</tr>`;
  });
  return scrollingTable(`<th>merge</th>${header}`, rows);
}

function plotOf(title: string, merges: readonly ScoredMerge[], columns: readonly Column[]): string {
  if (columns.length === 0) return "";
  const series = columns.map((column, index): Series => ({
    label: column.title,
    style: seriesStyle(index),
    values: merges.map((merge) => column.value(merge) ?? null),
  }));
  const range = rangeOf(series.flatMap(({ values }) => values), 0.05);
  const labels = merges.map(({ label }) => label);
  return svgPlot({ title, positions: labels, series, range, ends: [labels[0]!, labels.at(-1)!] });
}

const HEADING = "Comparison of merges";

/** Whether a text, or its first 1,024 characters, is a page of {@linkcode comparisonReport}. */
export function isComparisonReport(text: string): boolean {
  return text.startsWith(htmlOpening(HEADING));
}

/** A self-contained page: the table of a comparison, and how accuracy, loss and cosines go from merge to merge. */
export function comparisonReport(merges: readonly ScoredMerge[]): string {
  const columns = columnsOf(merges);
  const starting = (word: string) => columns.filter(({ title }) => title.includes(word));
  const body = [
    comparisonTable(merges, columns),
    plotOf("Accuracy", merges, starting("accuracy")),
    plotOf("Cosine of the merged delta to each adapter's", merges, starting("cosine")),
    plotOf("Part of the weighted sum's direction that is lost", merges, starting("lost")),
  ];
  return htmlPage(HEADING, body.join("\n"));
}
