import type { ModuleForm } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { canWiden } from "../../numbers/widen.ts";
import type { StoredTensor } from "../../tensors/tensor_file.ts";

/** What the shapes of a module's two factors say. */
export interface PairShape {
  readonly rank: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly form: ModuleForm;
}

/** No model has a dimension near this; a larger rank comes from a damaged or hostile file. */
const MAX_RANK = 65_536;

/**
 * Checks that two tensors are the factors of a linear module (A [r, in], B [out, r]) or of a convolution
 * (A [r, channels, …kernel], B [out, r, 1, …]).
 *
 * @throws {FormatError} `shape_mismatch`, `grouped_conv`, `invalid_rank`, `unsupported_dtype`
 */
export function checkPair(a: StoredTensor, b: StoredTensor, where: string): PairShape {
  checkFloat(a, where);
  checkFloat(b, where);
  const [rank, channels, ...kernel] = a.shape;
  const [outFeatures, rankOfB, ...ones] = b.shape;
  const isPair = outFeatures !== undefined && rank !== undefined && channels !== undefined &&
    rankOfB !== undefined && ones.every((dimension) => dimension === 1) &&
    (ones.length === 0 || kernel.length === 0 || ones.length === kernel.length) && kernel.length <= 3;
  if (!isPair) throw shapeMismatch(a, b, where);
  if (rank === 0 || channels === 0 || outFeatures === 0 || kernel.includes(0)) throw emptyModule(a, b, where);
  if (rank !== rankOfB) {
    throw kernel.length > 0 && rank % rankOfB === 0
      ? groupedConvolution(rank / rankOfB, where)
      : shapeMismatch(a, b, where);
  }
  checkRank(rank, where);
  const dimensions = Math.max(kernel.length, ones.length);
  const form: ModuleForm = dimensions === 0
    ? { kind: "linear" }
    : { kind: "conv", kernel: kernel.length > 0 ? kernel : ones };
  return { rank, inFeatures: kernel.reduce((product, size) => product * size, channels), outFeatures, form };
}

/** @throws {FormatError} `invalid_rank` */
export function checkRank(rank: number, where: string): void {
  if (rank <= MAX_RANK) return;
  throw new FormatError(
    "invalid_rank",
    `the rank is ${rank}, at most ${MAX_RANK} was expected`,
    "The file is damaged or hostile: fetch it again from its source.",
    where,
  );
}

/** @throws {FormatError} `unsupported_dtype` */
export function checkFloat(tensor: StoredTensor, where: string): void {
  if (/^(F|BF)\d/.test(tensor.dtype) && canWiden(tensor.dtype)) return;
  throw new FormatError(
    "unsupported_dtype",
    `the factor ${tensor.name} is stored as ${tensor.dtype}; F32, F16, BF16, F64 or an 8-bit float was expected`,
    "Save the adapter again as float32, float16 or bfloat16.",
    where,
  );
}

/** The error of a module with one factor only. */
export function incompletePair(found: string, missing: string, where: string): FormatError {
  return new FormatError(
    "incomplete_pair",
    `the module has ${found} but no ${missing}`,
    "The adapter is incomplete: fetch or save it again.",
    where,
  );
}

/** `[4, 320]` */
export function shapeText({ shape }: { readonly shape: readonly number[] }): string {
  return `[${shape.join(", ")}]`;
}

/** The error of two factors whose shapes do not fit. */
export function shapeMismatch(a: StoredTensor, b: StoredTensor, where: string): FormatError {
  return new FormatError(
    "shape_mismatch",
    `A has the shape ${shapeText(a)} and B ${shapeText(b)}; expected [r, in] and [out, r]`,
    "The adapter is damaged: fetch or save it again.",
    where,
  );
}

function emptyModule(a: StoredTensor, b: StoredTensor, where: string): FormatError {
  return new FormatError(
    "invalid_rank",
    `A has the shape ${shapeText(a)} and B ${shapeText(b)}: the module is empty`,
    "Leave the adapter out, or save it again without this module.",
    where,
  );
}

function groupedConvolution(groups: number, where: string): FormatError {
  return new FormatError(
    "grouped_conv",
    `the module is a convolution in ${groups} groups, whose ΔW is no product of two matrices`,
    "Leave the adapter out: grouped convolutions are not handled.",
    where,
  );
}
