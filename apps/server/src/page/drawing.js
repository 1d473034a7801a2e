/** Drawings made of what is known: no chart library, no request. */
import { svg } from "./dom.js";

/** Bars of one value per module, such as its norm. */
export function spark(values, title) {
  const top = Math.max(...values, Number.MIN_VALUE);
  const width = 100 / values.length;
  const bars = values.map((value, index) => {
    const height = Math.max(1, 28 * value / top);
    return svg("rect", {
      x: (index * width).toFixed(2),
      y: (30 - height).toFixed(2),
      width: Math.max(0.4, width * 0.75).toFixed(2),
      height: height.toFixed(2),
    });
  });
  return svg(
    "svg",
    {
      class: "spark",
      viewBox: "0 0 100 30",
      preserveAspectRatio: "none",
      fill: "currentColor",
      role: "img",
      "aria-label": title,
    },
    ...bars,
  );
}

const HEIGHT = 112;
const WIDTH = 330;
/** Where the threads have come together, and the distance of the weft's threads from there on. */
const CLOTH = 208;
const WEFT = 11;

/**
 * Threads that become a cloth: as thick as their weights, dashed where a weight is negative. The weft passes over every
 * second one.
 */
export function threads(weights) {
  const total = weights.reduce((sum, weight) => sum + thickness(weight), 0);
  // Many thick threads have to share the height.
  const scale = Math.min(1, 0.8 * HEIGHT / Math.max(1, total));
  const gap = HEIGHT / (weights.length + 1);
  let edge = (HEIGHT - scale * total) / 2;
  const parts = weights.map((weight, index) => {
    const width = scale * thickness(weight);
    const start = gap * (index + 1);
    const end = edge + width / 2;
    edge += width;
    const thread = svg("path", {
      class: `t${index % 10}`,
      d: `M0 ${start} C 110 ${start}, 110 ${end}, ${CLOTH} ${end} H ${WIDTH}`,
      "stroke-width": Math.max(0.75, 0.88 * width).toFixed(2),
      "stroke-dasharray": weight < 0 ? "3 4" : undefined,
    });
    return [thread, ...weft(index, end, width)];
  });
  const drawing = { class: "threads", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" };
  return svg("svg", drawing, ...parts.flat());
}

function thickness(weight) {
  return 3 + 9 * Math.min(2, Math.abs(weight));
}

/** The weft's pieces that lie over one thread. */
function weft(index, middle, width) {
  const pieces = [];
  for (let x = CLOTH + (index % 2 ? WEFT : 0) + WEFT / 2; x < WIDTH - 2; x += 2 * WEFT) {
    pieces.push(svg("rect", { x, y: middle - width / 2, width: 4, height: width, rx: 1.5 }));
  }
  return pieces;
}
