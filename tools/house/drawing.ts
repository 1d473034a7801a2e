import type { House, Room } from "./arrows.ts";

/** Where the picture of the house is kept. */
export const DRAWING = "docs/house.svg";

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

const WIDTH = 960;
const HEIGHT = 800;
const ROOM_HEIGHT = 72;

/** The libraries' part of the house: an arrow to all of them ends at its wall. */
const LIBRARIES: Box = { x: 250, y: 270, width: 660, height: 340 };

const PLACES: Readonly<Record<string, Box>> = {
  "apps/runner": { x: 330, y: 140, width: 220, height: ROOM_HEIGHT },
  "apps/server": { x: 610, y: 140, width: 220, height: ROOM_HEIGHT },
  "libs/merge": { x: 390, y: 300, width: 380, height: ROOM_HEIGHT },
  "libs/model": { x: 285, y: 405, width: 180, height: ROOM_HEIGHT },
  "libs/lego": { x: 490, y: 405, width: 180, height: ROOM_HEIGHT },
  "libs/iteris": { x: 695, y: 405, width: 180, height: ROOM_HEIGHT },
  "libs/formats": { x: 285, y: 510, width: 240, height: ROOM_HEIGHT },
  "libs/tensor": { x: 560, y: 510, width: 315, height: ROOM_HEIGHT },
  "libs/testing": { x: 30, y: 510, width: 190, height: ROOM_HEIGHT },
  "tools/std": { x: 30, y: 140, width: 190, height: ROOM_HEIGHT },
  "tools": { x: 285, y: 680, width: 270, height: ROOM_HEIGHT },
  "tests": { x: 605, y: 680, width: 270, height: ROOM_HEIGHT },
};

const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .name { font-weight: 600; font-size: 15px; }
  .note { fill: #57606a; font-size: 12px; }
  .room { fill: #ffffff; stroke: #57606a; stroke-width: 1.5; }
  .tests { stroke-dasharray: 5 4; }
  .app { fill: #fff1d6; }
  .library { fill: #e3f0ff; }
  .wall { fill: none; stroke: #8c959f; stroke-width: 2; }
  .roof { fill: #f6f8fa; stroke: #8c959f; stroke-width: 2; stroke-linejoin: round; }
  .arrow { fill: none; stroke: #0a58ca; stroke-width: 1.6; marker-end: url(#head); }
  .head { fill: #0a58ca; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note { fill: #9da7b3; }
    .room { fill: #161b22; stroke: #9da7b3; }
    .app { fill: #3b2f14; }
    .library { fill: #12263f; }
    .wall, .roof { stroke: #6e7681; }
    .roof { fill: #1c2128; }
    .arrow { stroke: #79b8ff; }
    .head { fill: #79b8ff; }
  }`;

/** The picture of the house as SVG: a room for each member, an arrow for each allowed import. */
export function drawHouse(house: House): string {
  const libraries = house.rooms.map(({ path }) => path)
    .filter((path) => path.startsWith("libs/") && !house.rooms.find((room) => room.path === path)!.testsOnly);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="title desc">`,
    `<title id="title">The house of LoRA Loom</title>`,
    `<desc id="desc">${describe(house)}</desc>`,
    `<style>${STYLE}\n</style>`,
    `<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">` +
    `<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>`,
    roof(),
    wall(),
    ...house.rooms.map(drawRoom),
    ...house.rooms.flatMap((room) => drawArrows(room, libraries)),
    legend(),
    `</svg>`,
    ``,
  ].join("\n");
}

function describe({ rooms }: House): string {
  return rooms.map(({ path, mayImport }) => {
    const allowed = mayImport === "*" ? "anything" : mayImport.join(", ") || "nothing";
    return `${path} may import ${allowed}`;
  }).join("; ");
}

function roof(): string {
  const { x, width } = LIBRARIES;
  return `<path class="roof" d="M${x - 20} 236 L${x + 40} 100 L${x + width / 2} 40 L${x + width - 40} 100 ` +
    `L${x + width + 20} 236 Z"/>\n<text class="note" x="${
      x + width / 2
    }" y="94" text-anchor="middle">apps</text>`;
}

function wall(): string {
  const { x, y, width, height } = LIBRARIES;
  return `<rect class="wall" x="${x}" y="${y}" width="${width}" height="${height}" rx="4"/>\n` +
    `<text class="note" x="${x + 12}" y="${y + 22}">libraries</text>`;
}

function place(path: string): Box {
  const box = PLACES[path];
  if (!box) throw new Error(`${path} has no place in the picture; give it one in tools/house/drawing.ts`);
  return box;
}

function drawRoom({ path, purpose, mayImport, testsOnly }: Room): string {
  const { x, y, width, height } = place(path);
  const kind = path.startsWith("apps/") ? "app" : path.startsWith("libs/") ? "library" : "";
  const isForTests = testsOnly || path === "tests";
  const classes = ["room", kind, isForTests ? "tests" : ""].filter(Boolean).join(" ");
  const centre = x + width / 2;
  const note = mayImport === "*" ? "may import any room" : testsOnly ? "imported by tests only" : "";
  const lines = [
    `<rect class="${classes}" x="${x}" y="${y}" width="${width}" height="${height}" rx="6"/>`,
    `<text class="name" x="${centre}" y="${y + 27}" text-anchor="middle">${path}</text>`,
    `<text x="${centre}" y="${y + 46}" text-anchor="middle">${purpose}</text>`,
  ];
  if (note) lines.push(`<text class="note" x="${centre}" y="${y + 63}" text-anchor="middle">${note}</text>`);
  return lines.join("\n");
}

/** One arrow for each allowed import; where all libraries are allowed, one to the wall around them. */
function drawArrows({ path, mayImport }: Room, libraries: readonly string[]): string[] {
  if (mayImport === "*") return [];
  const from = place(path);
  const importsAll = libraries.every((library) => mayImport.includes(library));
  const single = mayImport.filter((target) => !importsAll || !libraries.includes(target));
  const arrows = single.map((target) => arrow(from, place(target)));
  return importsAll ? [...arrows, arrow(from, { ...LIBRARIES, x: from.x, width: from.width })] : arrows;
}

function arrow(from: Box, to: Box): string {
  if (from.y === to.y) return sideways(from, to);
  const isNextFloor = to.y - (from.y + from.height) < ROOM_HEIGHT;
  return isNextFloor ? down(from, to) : around(from, to);
}

function sideways(from: Box, to: Box): string {
  const goesRight = to.x > from.x;
  const [start, end] = goesRight ? [from.x + from.width, to.x] : [from.x, to.x + to.width];
  const isNear = Math.abs(end - start) < 120;
  // Off the middle, where the arrows that come around end.
  const y = from.y + from.height / 3;
  if (isNear) return line(start, y, end, y);
  // A room lies between: pass above it.
  const lift = from.y - 14;
  const fromX = from.x + from.width / 4;
  return `<path class="arrow" d="M${fromX} ${from.y} C${fromX} ${lift - 12} ${end + 80} ${lift - 12} ${end} ${
    from.y + 20
  }"/>`;
}

/** To the floor below: as steep as the two rooms allow. */
function down(from: Box, to: Box): string {
  const left = Math.max(from.x, to.x);
  const right = Math.min(from.x + from.width, to.x + to.width);
  const centre = from.x + from.width / 2;
  const end = left < right ? (left + right) / 2 : to.x > centre ? to.x + 40 : to.x + to.width - 40;
  const start = left < right ? end : to.x > centre ? from.x + from.width - 30 : from.x + 30;
  return line(start, from.y + from.height, end, to.y);
}

/** Past a floor: along the outer wall, on the side where the target lies. */
function around(from: Box, to: Box): string {
  const goesRight = to.x + to.width / 2 > from.x + from.width / 2;
  const start = goesRight ? from.x + from.width : from.x;
  const lane = goesRight ? LIBRARIES.x + LIBRARIES.width - 16 : LIBRARIES.x + 16;
  const end = goesRight ? to.x + to.width : to.x;
  const y = from.y + from.height / 2;
  const toY = to.y + to.height / 2;
  return `<path class="arrow" d="M${start} ${y} H${lane} V${toY} H${end}"/>`;
}

function line(x1: number, y1: number, x2: number, y2: number): string {
  return `<path class="arrow" d="M${x1} ${y1} L${x2} ${y2}"/>`;
}

function legend(): string {
  return `<text class="note" x="${LIBRARIES.x}" y="645">An arrow: may import. ` +
    `A dashed room: for tests. Everything else is refused by deno task check.</text>`;
}
