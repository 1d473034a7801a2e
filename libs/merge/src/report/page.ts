import { escapeHtml } from "./svg.ts";

/** Colours of up to ten series that tell apart on both grounds. */
const COLOURS = [
  "#2f6fde",
  "#d1495b",
  "#2a9d6f",
  "#b0761f",
  "#8b5fbf",
  "#1b9aaa",
  "#c2527f",
  "#6b8e23",
  "#7a7a7a",
  "#a0522d",
];

/** The class that gives a plot's series its colour, by their order. */
export function seriesStyle(index: number): string {
  return `s${index % COLOURS.length}`;
}

const STYLE = `
:root { color-scheme: light dark; --ground: #fff; --ink: #1d1f24; --soft: #666b76; --line: #dcdfe5; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181d; --ink: #e7e9ee; --soft: #9aa1ae; --line: #343943; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; margin: 0; } dt { color: var(--soft); } dd { margin: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; width: 100%; overflow-wrap: normal; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; } td.n, th.n { text-align: right;
  font-variant-numeric: tabular-nums; } td.text { white-space: normal; min-width: 14rem; }
figure { margin: 1.5rem 0; } figcaption { margin-bottom: .3rem; } figcaption span::before { content: "● "; } figcaption span { margin-right: .6rem; } figcaption b { color: var(--ink); font-weight: normal; }
svg { width: 100%; height: auto; display: block; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: 1; } polyline { fill: none; stroke: currentColor; stroke-width: 1; opacity: .5; } circle { fill: currentColor; }
@media print { :root { color-scheme: light; --ground: #fff; --ink: #000; --soft: #444; --line: #bbb; } body { max-width: none; padding: 0; font-size: 11pt; }
  figure, tr, dl { break-inside: avoid; } h2 { break-after: avoid; } .scroll { overflow: visible; } td, th { white-space: normal; } }
@media (max-width: 36rem) { dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin-bottom: .5rem; }
  svg text { font-size: 17px; } }
${COLOURS.map((colour, index) => `.s${index} { color: ${colour}; }`).join("\n")}
`;

/**
 * A table that scrolls where it is wider than the page.
 *
 * @param header its `<th>`
 * @param rows each a `<tr>`
 */
export function scrollingTable(header: string, rows: readonly string[]): string {
  return `<div class="scroll" tabindex="0"><table><thead><tr>${header}</tr></thead><tbody>${
    rows.join("")
  }</tbody></table></div>`;
}

/** How a page with this title begins. */
export function htmlOpening(title: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>`;
}

/**
 * A page of one file without any request, for any screen, light and dark.
 *
 * @param heading plain text
 * @param body HTML below the heading
 * @param title of the window; default the heading
 */
export function htmlPage(heading: string, body: string, title = heading): string {
  return `${htmlOpening(title)}<style>${STYLE}</style></head><body>
<h1>${escapeHtml(heading)}</h1>
${body}
</body></html>
`;
}
