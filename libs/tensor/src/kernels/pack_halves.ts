import type { Kernel, KernelBuffer } from "../gpu/kernel.ts";
import type { DType } from "../tensor.ts";
import { lines, range } from "./gemm_interface.ts";

/** Rows of a packed tile. */
export const PACKED_ROWS = 128;
/** Inner length of a packed tile. */
export const PACKED_K = 16;
/**
 * Invocations of {@linkcode largestOfRows}. Where rows run along memory, each takes one row as far as {@linkcode LARGEST_RUN}; where the
 * inner index does, they go through one row together.
 */
export const LARGEST_LANES = 64;
export const LARGEST_RUN = 128;

/** vec4us of eight values in a row of a packed tile. */
const VECTORS = PACKED_K / 8;

/** How the operand lies in memory, and what its values are. */
export interface PackSource {
  readonly dtype: Exclude<DType, "u32">;
  /** The inner index runs along memory (A, or Bᵀ); otherwise the rows of the packed operand do (Aᵀ, or B). */
  readonly alongInner: boolean;
  /** Multiply by weights of the inner index first. */
  readonly weighted: boolean;
  /** The inner index runs along memory, and rows start at multiples of 16 bytes, of which as many are read at once. */
  readonly vectors: boolean;
}

/** Elements in 16 bytes. */
export const VECTOR_LENGTH: Readonly<Record<PackSource["dtype"], number>> = { f32: 4, f16: 8, bf16: 8 };

/** What distinguishes the variants of {@linkcode packHalves}. */
export interface PackForm extends PackSource {
  /** 2: x = high + low, both f16, about 22 bits; 1: x rounded to f16. */
  readonly parts: 1 | 2;
}

/** Every source there is a kernel for: weights go with f32 only, and with rows that run along memory. */
export const PACK_SOURCES: readonly PackSource[] = (["f32", "f16", "bf16"] as const).flatMap((dtype) => [
  { dtype, alongInner: true, weighted: false, vectors: true },
  { dtype, alongInner: true, weighted: false, vectors: false },
  { dtype, alongInner: false, weighted: false, vectors: false },
  ...dtype === "f32" ? [{ dtype, alongInner: false, weighted: true, vectors: false }] : [],
]);

/** Every form there is a kernel for. */
export const PACK_FORMS: readonly PackForm[] = PACK_SOURCES.flatMap((source) =>
  ([1, 2] as const).map((parts) => ({ ...source, parts }))
);

/** `f32_inner_vec4`, `f32_outer_weighted` and so on. */
export function packSourceName({ dtype, alongInner, weighted, vectors }: PackSource): string {
  return `${dtype}_${alongInner ? "inner" : "outer"}${weighted ? "_weighted" : ""}${vectors ? "_vec4" : ""}`;
}

const PARAMS: Kernel["params"] = [
  ["rows", "u32"],
  ["inner", "u32"],
  ["stride", "u32"],
  ["base", "u32"],
  ["chunks", "u32"], // of the packed operand
  ["firstWeight", "u32"],
];

function buffersOf(
  { dtype, weighted, vectors }: PackSource,
  others: readonly KernelBuffer[],
): KernelBuffer[] {
  const element = dtype === "f32" ? "f32" : "u32";
  return [
    { name: "x", element: vectors ? `vec4<${element}>` : element, access: "read" },
    ...weighted ? [{ name: "weights", element: "f32", access: "read" } as const] : [],
    ...others,
  ];
}

/** Element `index` of 32-bit words `x`. */
const ELEMENT: Readonly<Record<PackSource["dtype"], (index: string) => string>> = {
  f32: (index) => `x[${index}]`,
  f16: (index) => `unpack2x16float(x[${index} / 2u])[${index} % 2u]`,
  bf16: (index) => `bitcast<f32>((x[${index} / 2u] >> (16u * (${index} % 2u))) << 16u)`,
};

/** Element i of the words in a vec4 `words`. */
const ELEMENT_OF_VECTOR: Readonly<Record<PackSource["dtype"], (words: string, i: number) => string>> = {
  f32: (words, i) => `${words}[${i}]`,
  f16: (words, i) => `unpack2x16float(${words}[${Math.floor(i / 2)}])[${i % 2}]`,
  bf16: (words, i) =>
    `bitcast<f32>(${words}[${Math.floor(i / 2)}] ${i % 2 === 0 ? "<< 16u" : "& 0xffff0000u"})`,
};

/** `valueAt`: one element of the operand. */
function valueAt({ dtype, alongInner, weighted }: PackSource): string {
  return /* wgsl */ `
fn element(index: u32) -> f32 { return ${ELEMENT[dtype]("index")}; }
fn valueAt(row: u32, k: u32) -> f32 {
  return element(params.base + ${alongInner ? "row * params.stride + k" : "k * params.stride + row"})${
    weighted ? " * weights[params.firstWeight + k]" : ""
  };
}`;
}

/** `value0` to `value7`: elements k to k + 7 of a row, and anything beyond its last element. */
function eightValues(source: PackSource, row: string): string {
  const { dtype, vectors } = source;
  if (!vectors) {
    return lines(range(8).map((i) => `let value${i} = valueAt(${row}, min(k + ${i}u, params.inner - 1u));`));
  }
  const length = VECTOR_LENGTH[dtype];
  const at = (k: string) =>
    `(params.base + ${row} * params.stride + min(${k}, params.inner - 1u)) / ${length}u`;
  return lines([
    ...range(8 / length).map((v) => `let words${v} = x[${at(`k + ${v * length}u`)}];`),
    ...range(8).map((i) =>
      `let value${i} = ${ELEMENT_OF_VECTOR[dtype](`words${Math.floor(i / length)}`, i % length)};`
    ),
  ]);
}

/**
 * Largest magnitude of each row of an operand, as bits: those of floats without sign are ordered like the floats. Where rows run along
 * memory, workgroups meet in an atomic maximum, and `largest` has to start as zeros.
 */
export function largestOfRows(source: PackSource): Kernel {
  const { alongInner, vectors } = source;
  const alongRow = vectors
    ? /* wgsl */ `
  for (var k = 8u * lane; k < params.inner; k += ${8 * LARGEST_LANES}u) {
    ${eightValues(source, "row")}
    ${
      lines(
        range(8).map((i) => `if (k + ${i}u < params.inner) { found = max(found, magnitude(value${i})); }`),
      )
    }
  }`
    : /* wgsl */ `
  for (var k = lane; k < params.inner; k += ${LARGEST_LANES}u) { found = max(found, magnitude(valueAt(row, k))); }`;
  const rowByRow = /* wgsl */ `
  let row = group.x + group.y * ${GRID_ROWS}u;
  if (row >= params.rows) { return; }
  var found = 0u;
  ${alongRow}
  shares[lane] = found;
  workgroupBarrier();
  for (var half = ${LARGEST_LANES / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { shares[lane] = max(shares[lane], shares[lane + half]); }
    workgroupBarrier();
  }
  if (lane == 0u) { largest[row] = shares[0]; }`;
  const sideBySide = /* wgsl */ `
  let row = group.x * ${LARGEST_LANES}u + lane;
  if (row >= params.rows) { return; }
  let kStart = group.y * ${LARGEST_RUN}u;
  let kEnd = min(kStart + ${LARGEST_RUN}u, params.inner);
  var found = 0u;
  for (var k = kStart; k < kEnd; k++) { found = max(found, magnitude(valueAt(row, k))); }
  atomicMax(&largest[row], found);`;
  return {
    name: `pack_largest_${packSourceName(source)}`,
    buffers: buffersOf(source, [
      { name: "largest", element: alongInner ? "u32" : "atomic<u32>", access: "read_write" },
    ]),
    params: PARAMS,
    code: /* wgsl */ `
${alongInner ? `var<workgroup> shares: array<u32, ${LARGEST_LANES}>;` : ""}
${vectors ? "" : valueAt(source)}
fn magnitude(value: f32) -> u32 { return bitcast<u32>(value) & 0x7fffffffu; }

@compute @workgroup_size(${LARGEST_LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {${
      alongInner ? rowByRow : sideBySide
    }
}`,
  };
}

/** Rows along the first axis of the dispatch of {@linkcode largestOfRows} where the inner index runs along memory. */
export const GRID_ROWS = 32768;

/** The power of two by which a row is divided, so that its largest element lies between 2¹⁴ and 2¹⁵; 1 for rows of zeros. */
export const SCALE_OF_LARGEST = /* wgsl */ `
fn scaleOf(largest: u32) -> f32 {
  let exponent = clamp(largest >> 23u, 15u, 254u) - 14u;
  return select(bitcast<f32>(exponent << 23u), 1.0, largest == 0u);
}`;

/** Functions that split what was scaled into two parts of f16. */
export const SPLIT_INTO_HALVES = /* wgsl */ `
/** 1 / scale for a power of two; by bits, so that it is exact. */
fn reciprocal(scale: f32) -> f32 { return bitcast<f32>((254u << 23u) - bitcast<u32>(scale)); }
/** x to 11 significant bits. By bits, because compilers may take a conversion to f16 and back for the identity. */
fn rounded(x: f32) -> f32 { return bitcast<f32>((bitcast<u32>(x) + 0x1000u) & 0xffffe000u); }`;

/** Whether rows are divided by powers of two. What is in f16 already needs no scale. */
export function isScaled({ dtype }: PackSource): boolean {
  return dtype !== "f16";
}

/**
 * Brings an operand into tiles of f16 for the matrix units, `[tile of 128 rows][chunk of 16][part][half of the chunk][row][8]`,
 * filled up with zeros. An invocation makes the eight values of a vec4u, in both parts. NaN and infinity become NaN. Where rows are not
 * scaled, `largest` is set to zeros, which stand for a scale of 1.
 */
export function packHalves(form: PackForm): Kernel {
  const { parts } = form;
  const values = range(8).map((i) =>
    `let v${i} = select(0.0, value${i} * down, inside && k + ${i}u < params.inner);`
  );
  const words = (name: string) =>
    range(4).map((i) => `bitcast<u32>(vec2<f16>(${name}${2 * i}, ${name}${2 * i + 1}))`).join(", ");
  return {
    name: `pack_halves_${packSourceName(form)}_${parts}`,
    buffers: buffersOf(form, [
      { name: "largest", element: "u32", access: isScaled(form) ? "read" : "read_write" },
      { name: "packed", element: "vec4u", access: "read_write" },
    ]),
    params: PARAMS,
    enables: ["enable f16;"],
    requires: { features: ["shader-f16"] },
    code: /* wgsl */ `
${form.vectors ? "" : valueAt(form)}
${SCALE_OF_LARGEST}
${SPLIT_INTO_HALVES}

@compute @workgroup_size(${PACKED_ROWS}, ${VECTORS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = group.y * ${PACKED_ROWS}u + local.x;
  let inside = row < params.rows;
  let line = min(row, params.rows - 1u);
  ${
      isScaled(form)
        ? "let down = reciprocal(scaleOf(largest[line]));"
        : "if (inside && group.x == 0u && local.y == 0u) { largest[row] = 0u; }\n  let down = 1.0;"
    }
  let k = group.x * ${PACKED_K}u + local.y * 8u;
  ${eightValues(form, "line")}
  ${lines(values)}
  ${lines(range(8).map((i) => `let r${i} = rounded(v${i}); let high${i} = f16(r${i});`))}
  let at = (group.y * params.chunks + group.x) * ${
      parts * VECTORS * PACKED_ROWS
    }u + local.y * ${PACKED_ROWS}u + local.x;
  packed[at] = vec4u(${words("high")});
  ${
      parts === 2
        ? `${lines(range(8).map((i) => `let low${i} = f16(v${i} - r${i});`))}
  packed[at + ${VECTORS * PACKED_ROWS}u] = vec4u(${words("low")});`
        : ""
    }
}`,
  };
}
