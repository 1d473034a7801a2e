import type { Kernel, KernelBuffer, KernelRequirements } from "../gpu/kernel.ts";

/** What distinguishes the variants of one matrix product kernel. */
export interface GemmForm {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** Offsets, strides and extents of all three matrices are multiples of four, so that rows are read as vec4s. */
  readonly vec4: boolean;
  /** Rows of op(B), that is the inner index, are multiplied by weights: Xᵀ diag(w) X. */
  readonly weighted: boolean;
}

/** A matrix product kernel and the block of C that one of its workgroups computes. */
export interface GemmKernel {
  readonly kernel: Kernel;
  readonly tileRows: number;
  readonly tileColumns: number;
}

/** All forms a kernel template has to offer. */
export const GEMM_FORMS: readonly GemmForm[] = [false, true].flatMap((vec4) => [
  ...[false, true].flatMap((transposeA) =>
    [false, true].map((transposeB) => ({ transposeA, transposeB, vec4, weighted: false }))
  ),
  { transposeA: true, transposeB: false, vec4, weighted: true },
]);

/** `nt_vec4`, `tn_weighted` and so on. */
export function formName({ transposeA, transposeB, vec4, weighted }: GemmForm): string {
  return `${transposeA ? "t" : "n"}${transposeB ? "t" : "n"}${vec4 ? "_vec4" : ""}${
    weighted ? "_weighted" : ""
  }`;
}

/**
 * Parameters that all matrix product kernels share, for C = alpha · op(A) op(B) + beta · C. The workgroup's z counts slices
 * of the inner index, and products of a batch: slice z covers [z · kPerSlice, (z + 1) · kPerSlice) and writes at `sliceStride` · z in C;
 * after `slices` of them the next product begins, `batchA` elements further in A and so on.
 */
export const GEMM_PARAMS: Kernel["params"] = [
  ["m", "u32"],
  ["n", "u32"],
  ["k", "u32"],
  ["strideA", "u32"],
  ["strideB", "u32"],
  ["strideC", "u32"],
  ["baseA", "u32"],
  ["baseB", "u32"],
  ["baseC", "u32"],
  ["baseWeights", "u32"],
  ["kPerSlice", "u32"],
  ["slices", "u32"],
  ["sliceStride", "u32"],
  ["batchA", "u32"],
  ["batchB", "u32"],
  ["batchC", "u32"],
  ["lowerOnly", "u32"],
  ["trims", "u32"],
  ["alpha", "f32"],
  ["beta", "f32"],
];

/** Values of {@linkcode GEMM_PARAMS}. */
export interface GemmParams {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly strideA: number;
  readonly strideB: number;
  readonly strideC: number;
  readonly baseA: number;
  readonly baseB: number;
  readonly baseC: number;
  readonly baseWeights: number;
  readonly kPerSlice: number;
  readonly slices: number;
  readonly sliceStride: number;
  readonly batchA: number;
  readonly batchB: number;
  readonly batchC: number;
  /** 1: skip tiles that lie wholly above the diagonal. */
  readonly lowerOnly: number;
  /** Sum of {@linkcode TRIM}. */
  readonly trims: number;
  readonly alpha: number;
  readonly beta: number;
}

/** The values in the order of {@linkcode GEMM_PARAMS}. */
export function gemmParamValues(params: GemmParams): number[] {
  return GEMM_PARAMS.map(([name]) => params[name as keyof GemmParams]);
}

/** Bits of the parameter `trims`: which part of the inner index counts for a tile, because an operand is triangular. */
export const TRIM = { fromRow: 1, untilRow: 2, fromColumn: 4, untilColumn: 8 };

/**
 * WGSL in a kernel's main, which has the workgroup's id as `group`: which slice the workgroup computes, where the matrices of its product start, and
 * the part of the inner index, [kStart, kLimit), that counts for its tile.
 */
export function places(tileRows: number, tileColumns: number): string {
  const trims = (bit: number) => `(params.trims & ${bit}u) != 0u`;
  return /* wgsl */ `
  let slice = group.z % params.slices;
  let item = group.z / params.slices;
  let startA = params.baseA + item * params.batchA;
  let startB = params.baseB + item * params.batchB;
  let startC = params.baseC + item * params.batchC + slice * params.sliceStride;
  let kStart = max(slice * params.kPerSlice, max(
    select(0u, group.y * ${tileRows}u, ${trims(TRIM.fromRow)}),
    select(0u, group.x * ${tileColumns}u, ${trims(TRIM.fromColumn)}),
  ));
  let kLimit = min(min((slice + 1u) * params.kPerSlice, params.k), min(
    select(params.k, (group.y + 1u) * ${tileRows}u, ${trims(TRIM.untilRow)}),
    select(params.k, (group.x + 1u) * ${tileColumns}u, ${trims(TRIM.untilColumn)}),
  ));`;
}

/** Assembles a kernel from its template's code; `a` and `b` are vec4 arrays in the `vec4` forms, as the template says. */
export function gemmKernel(
  name: string,
  form: GemmForm,
  elements: { readonly a: string; readonly b: string; readonly c: string },
  code: string,
  requires: KernelRequirements,
  enables: readonly string[] = [],
): Kernel {
  const buffers: KernelBuffer[] = [
    { name: "a", element: elements.a, access: "read" },
    { name: "b", element: elements.b, access: "read" },
    { name: "c", element: elements.c, access: "read_write" },
    ...form.weighted ? [{ name: "weights", element: "f32", access: "read" } as const] : [],
  ];
  return { name: `gemm_${formName(form)}_${name}`, buffers, params: GEMM_PARAMS, code, enables, requires };
}

/** [0, …, count − 1]. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/** `lines` joined for WGSL, one a line. */
export function lines(parts: readonly string[]): string {
  return parts.join("\n");
}
