/** One line or set of dots of a plot. */
export interface Series {
  readonly label: string;
  /** One value per position; null leaves a gap. */
  readonly values: readonly (number | null)[];
  /** CSS class that gives it its colour: `s0` … `s9`. */
  readonly style: string;
}

/** What a plot shows. */
export interface Plot {
  readonly title: string;
  /** Names of the positions, for the tooltips. */
  readonly positions: readonly string[];
  readonly series: readonly Series[];
  readonly range: readonly [low: number, high: number];
  /** What stands below the first and the last position. Default: `first module`, `last`. */
  readonly ends?: readonly [first: string, last: string];
}

const WIDTH = 640;
const HEIGHT = 240;
const MARGIN = { left: 58, right: 10, top: 12, bottom: 24 };
const TICKS = 4;

/** Text that is safe between tags and in attributes. */
export function escapeHtml(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character]!);
}

/** Bounds that hold all values, opened a little and at least `least` wide. */
export function rangeOf(values: readonly (number | null)[], least: number): [low: number, high: number] {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return [0, least];
  const low = Math.min(...known);
  const high = Math.max(...known);
  const room = Math.max((least - (high - low)) / 2, 0.05 * (high - low));
  return [low - room, high + room];
}

/** An inline SVG with one dot per module and series, joined by thin lines; every dot has a tooltip. */
export function svgPlot({ title, positions, series, range: [low, high], ends }: Plot): string {
  const [first, last] = ends ?? ["first module", "last"];
  const innerWidth = WIDTH - MARGIN.left - MARGIN.right;
  const innerHeight = HEIGHT - MARGIN.top - MARGIN.bottom;
  const x = (index: number) =>
    MARGIN.left + (positions.length > 1 ? index / (positions.length - 1) : 0.5) * innerWidth;
  const y = (value: number) => MARGIN.top + (1 - (value - low) / (high - low)) * innerHeight;
  const ticks = Array.from({ length: TICKS + 1 }, (_, i) => low + (i / TICKS) * (high - low));
  const grid = ticks.map((tick) =>
    `<line class="grid" x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${y(tick).toFixed(1)}" y2="${
      y(tick).toFixed(1)
    }"/>` +
    `<text x="${MARGIN.left - 6}" y="${(y(tick) + 4).toFixed(1)}" text-anchor="end">${
      Number(tick.toPrecision(3))
    }</text>`
  ).join("");
  const axis = `<text x="${MARGIN.left}" y="${HEIGHT - 6}">${escapeHtml(first)}</text>` +
    `<text x="${WIDTH - MARGIN.right}" y="${HEIGHT - 6}" text-anchor="end">${escapeHtml(last)}</text>`;
  const marks = series.map(({ label, values, style }) => {
    const points = values.flatMap((value, index) => value === null ? [] : [{ value, index }]);
    const line = points.map(({ value, index }) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const dots = points.map(({ value, index }) =>
      `<circle cx="${x(index).toFixed(1)}" cy="${y(value).toFixed(1)}" r="2.5">` +
      `<title>${escapeHtml(`${positions[index]}: ${label} ${value.toPrecision(4)}`)}</title></circle>`
    ).join("");
    return `<g class="${style}"><polyline points="${line}"/>${dots}</g>`;
  }).join("");
  const legend = series.map(({ label, style }) => `<span class="${style}"><b>${escapeHtml(label)}</b></span>`)
    .join(
      " ",
    );
  return `<figure><figcaption>${escapeHtml(title)}<br><small>${legend}</small></figcaption>` +
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${
      escapeHtml(title)
    }">${grid}${axis}${marks}</svg></figure>`;
}
