import { lines, range } from "./gemm_interface.ts";

/** Rows and columns of a tile that travels through workgroup memory to be read the other way. */
export const TRANSPOSED_TILE = 32;

/** Steps by which a workgroup of 32 × 8 invocations goes through the rows of a tile. */
const STEPS = range(4).map((step) => 8 * step);
/** Values from one row of the tile to the next: odd, so that rows lie in different memory banks. */
const PITCH = TRANSPOSED_TILE + 1;

/** Where a tile lies: names of the buffer and of parameters. */
export interface TileSource {
  readonly buffer: string;
  readonly element: "f32" | "u32";
  readonly base: string;
  readonly stride: string;
  readonly rows: string;
  readonly columns: string;
}

/** What a kernel with such a tile needs of a device. */
export const TILE_REQUIREMENTS = {
  workgroupStorageBytes: 4 * TRANSPOSED_TILE * PITCH,
  invocationsPerWorkgroup: 256,
};

/** The tile, to be declared by the kernel. */
export function tileMemory({ element }: TileSource): string {
  return `var<workgroup> tile: array<${element}, ${TRANSPOSED_TILE * PITCH}>;`;
}

/**
 * Brings the tile that starts at `row` and `column` to workgroup memory. Each invocation has its four reads on their way at once: beyond the
 * edge it reads what there is, so that none waits for a branch.
 */
export function stageTile({ buffer, base, stride, rows, columns }: TileSource): string {
  return lines([
    `let first = params.${base} + min(column + local.x, params.${columns} - 1u);`,
    ...STEPS.map((step) =>
      `let read${step} = ${buffer}[first + min(row + local.y + ${step}u, params.${rows} - 1u) * params.${stride}];`
    ),
    ...STEPS.map((step) => `tile[(local.y + ${step}u) * ${PITCH}u + local.x] = read${step};`),
    "workgroupBarrier();",
  ]);
}

/** Goes through the transposed tile along its rows: `line` is a column of the source, `value` its element in row `row + local.x`. */
export function forEachOfTile(body: string): string {
  return lines(STEPS.map((step) =>
    `{
    let line = column + local.y + ${step}u;
    let value = tile[local.x * ${PITCH}u + local.y + ${step}u];
    ${body}
  }`
  ));
}
