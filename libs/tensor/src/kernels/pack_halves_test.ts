import { assert, assertLessOrEqual } from "@std/assert";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { cast } from "../ops/cast.ts";
import type { Tensor } from "../tensor.ts";
import { openTestGpu } from "../test_support/devices.ts";
import { randomMatrix } from "../test_support/matrices.ts";
import {
  isScaled,
  LARGEST_LANES,
  LARGEST_RUN,
  largestOfRows,
  PACK_FORMS,
  PACKED_K,
  PACKED_ROWS,
  type PackForm,
  packHalves,
  packSourceName,
} from "./pack_halves.ts";

const [ROWS, INNER] = [133, 37];
const CHUNKS = Math.ceil(INNER / PACKED_K);
const TILES = Math.ceil(ROWS / PACKED_ROWS);

/** The exponent by which row i is scaled up: rows of very different size, and one of zeros. */
const exponentOf = (row: number) => (row * 37 % 7 - 3) * 9;

/** Row-major `[ROWS, INNER]`. */
function operand(dtype: PackForm["dtype"]): Float32Array<ArrayBuffer> {
  const { data } = randomMatrix(ROWS, INNER, 5);
  return Float32Array.from(data, (value, index) => {
    const row = Math.floor(index / INNER);
    // f16 has no room for rows of different size.
    return row === 3 ? 0 : value * (dtype === "f16" ? 1 : 2 ** exponentOf(row));
  });
}

function transposed(x: Float32Array): Float32Array<ArrayBuffer> {
  return Float32Array.from(x, (_, index) => x[index % ROWS * INNER + Math.floor(index / ROWS)]!);
}

/** Elements from one row to the next, as the operand lies in memory. */
function strideOf({ alongInner, vectors }: PackForm): number {
  if (!alongInner) return ROWS;
  return vectors ? Math.ceil(INNER / 8) * 8 : INNER;
}

/** The operand as the device has it, with NaN between its rows where these do not follow each other, and as values after the rounding to its dtype. */
async function upload(device: GpuDevice, form: PackForm): Promise<{ x: Tensor; values: Float64Array }> {
  const [host, stride, lines] = [operand(form.dtype), strideOf(form), form.alongInner ? ROWS : INNER];
  const dense = form.alongInner ? host : transposed(host);
  const width = dense.length / lines;
  const padded = Float32Array.from({ length: lines * stride }, (_, i) => {
    const column = i % stride;
    return column < width ? dense[Math.floor(i / stride) * width + column]! : NaN;
  });
  using whole = device.upload(padded, [lines, stride]);
  const x = cast(whole, form.dtype);
  const stored = await device.download(x);
  const at = (row: number, k: number) => form.alongInner ? row * stride + k : k * stride + row;
  return {
    x,
    values: Float64Array.from(
      { length: ROWS * INNER },
      (_, i) => stored[at(Math.floor(i / INNER), i % INNER)]!,
    ),
  };
}

async function pack(device: GpuDevice, form: PackForm, x: Tensor, weights: Tensor) {
  // Packing fills it where rows are not scaled.
  using largest = isScaled(form) ? device.zeros([ROWS], "u32") : device.empty([ROWS], "u32");
  using packed = device.empty([TILES * CHUNKS * form.parts * PACKED_ROWS * PACKED_K / 2], "u32");
  const params = [ROWS, INNER, strideOf(form), 0, CHUNKS, 0];
  const weighted = form.weighted ? [weights] : [];
  const grid = form.alongInner
    ? [ROWS] as const
    : [Math.ceil(ROWS / LARGEST_LANES), Math.ceil(INNER / LARGEST_RUN)] as const;
  if (isScaled(form)) device.dispatch(largestOfRows(form), [x, ...weighted, largest], params, grid);
  device.dispatch(packHalves(form), [x, ...weighted, largest, packed], params, [CHUNKS, TILES]);
  return {
    scales: Array.from(await device.download(largest), scaleOf),
    halves: new Float16Array((await device.downloadBytes(packed)).buffer),
  };
}

/** The power of two that brings a magnitude, given as bits, to [2¹⁴, 2¹⁵). */
function scaleOf(bits: number): number {
  return bits === 0 ? 1 : 2 ** (Math.min(Math.max(bits >>> 23, 15), 254) - 14 - 127);
}

/** Place of a value in `[tile][chunk][part][half of the chunk][row][8]`. */
function placeOf({ parts }: PackForm, row: number, k: number, part: number): number {
  const [tile, line] = [Math.floor(row / PACKED_ROWS), row % PACKED_ROWS];
  const [chunk, within] = [Math.floor(k / PACKED_K), k % PACKED_K];
  const block = (tile * CHUNKS + chunk) * parts + part;
  return ((block * (PACKED_K / 8) + Math.floor(within / 8)) * PACKED_ROWS + line) * 8 + within % 8;
}

for (const form of PACK_FORMS) {
  Deno.test(`packHalves() keeps ${form.parts === 2 ? 22 : 11} bits of every element of ${packSourceName(form)}`, async () => {
    await using device = await openTestGpu({ poison: true }) as GpuDevice;
    const { x, values } = await upload(device, form);
    const factors = Float32Array.from({ length: INNER }, (_, k) => 0.5 + k % 5);
    using weights = device.upload(factors, [INNER]);
    const { scales, halves } = await pack(device, form, x, weights);
    x.dispose();
    const bits = form.parts === 2 ? 21 : 11;
    for (let row = 0; row < TILES * PACKED_ROWS; row++) {
      const scale = row < ROWS ? scales[row]! : 1;
      assert(Number.isInteger(Math.log2(scale)), "a scale is a power of two");
      const expected = (k: number) =>
        row < ROWS && k < INNER ? values[row * INNER + k]! * (form.weighted ? factors[k]! : 1) : 0;
      const largest = Math.max(...Array.from({ length: INNER }, (_, k) => Math.abs(expected(k))));
      if (largest > 0 && isScaled(form)) {
        assert(
          largest / scale >= 2 ** 14 && largest / scale < 2 ** 15,
          `row ${row} is scaled to the top of f16`,
        );
      }
      for (let k = 0; k < CHUNKS * PACKED_K; k++) {
        let sum = 0;
        for (let part = 0; part < form.parts; part++) sum += halves[placeOf(form, row, k, part)]!;
        // Elements far below the largest of their row lose bits; what they lose is small against that one.
        const allowed = Math.max(2 ** -bits * Math.abs(expected(k)), 2 ** -38 * largest);
        assertLessOrEqual(Math.abs(sum * scale - expected(k)), allowed, `row ${row}, k ${k}`);
      }
    }
  });
}
