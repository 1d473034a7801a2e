import { FormatError } from "../../errors.ts";
import { computedTensor } from "../../tensors/derived_tensor.ts";
import type { StoredTensor } from "../../tensors/tensor_file.ts";
import { checkFloat, checkRank, shapeText } from "./pair.ts";
import { dropAdvice } from "../drop.ts";

/** Plain factors with the same product as a variant's. */
export interface ExpandedFactors {
  readonly a: StoredTensor;
  readonly b: StoredTensor;
  /** The r that the variant divides alpha by; undefined where it ignores alpha. */
  readonly alphaRank: number | undefined;
}

/** Names of convolutions whose kernel is larger than one element. */
const LARGE_KERNEL = /(^|[._])(conv[12]?|conv_in|conv_out|op|(in_layers|out_layers)[._]\d)$/;

/**
 * Refuses a convolution: its plain factors would be flattened, and the file does not tell the kernel.
 *
 * @throws {FormatError} `cannot_expand`
 */
export function refuseUnknownKernel(module: string, tensor: string, where: string): void {
  if (!LARGE_KERNEL.test(module)) return;
  throw new FormatError(
    "cannot_expand",
    `${tensor} is of a convolution, whose kernel the file does not tell`,
    `Leave the module out with ${dropAdvice(module)}, or the adapter.`,
    where,
  );
}

type Parts = ReadonlyMap<string, StoredTensor>;
/** A matrix that is read when it is needed. */
interface Matrix {
  readonly rows: number;
  readonly columns: number;
  read(): Promise<Float32Array>;
}

/**
 * LoHa as a plain LoRA of rank r²: (w1_a·w1_b) ⊙ (w2_a·w2_b) = B·A with B[o, (p, q)] = w1_a[o, p]·w2_a[o, q] and
 * A[(p, q), i] = w1_b[p, i]·w2_b[q, i].
 *
 * @throws {FormatError} `incomplete_pair`, `cannot_expand`, `shape_mismatch`
 */
export function expandLoha(parts: Parts, where: string): ExpandedFactors {
  refuseTucker(parts, ["hada_t1", "hada_t2"], where);
  const [outer1, inner1] = [matrix(parts, "hada_w1_a", where), matrix(parts, "hada_w1_b", where)];
  const [outer2, inner2] = [matrix(parts, "hada_w2_a", where), matrix(parts, "hada_w2_b", where)];
  const fits = outer1.rows === outer2.rows && inner1.columns === inner2.columns &&
    outer1.columns === inner1.rows && outer2.columns === inner2.rows;
  if (!fits) throw badShapes(parts, where);
  const rank = inner1.rows * inner2.rows;
  checkRank(rank, where);
  const name = nameOf(parts);
  return {
    alphaRank: inner1.rows,
    a: computedTensor(`${name} A`, [rank, inner1.columns], async () => {
      const [first, second] = [await inner1.read(), await inner2.read()];
      return rowProducts(first, second, inner1.rows, inner2.rows, inner1.columns);
    }),
    b: computedTensor(`${name} B`, [outer1.rows, rank], async () => {
      const [first, second] = [await outer1.read(), await outer2.read()];
      return columnProducts(first, second, outer1.rows, outer1.columns, outer2.columns);
    }),
  };
}

/**
 * LoKr as a plain LoRA: kron(w1_a·w1_b, w2_a·w2_b) = kron(w1_a, w2_a) · kron(w1_b, w2_b), where a part that is not
 * factored counts as itself times the identity.
 *
 * @throws {FormatError} `incomplete_pair`, `cannot_expand`, `shape_mismatch`
 */
export function expandLokr(parts: Parts, where: string): ExpandedFactors {
  refuseTucker(parts, ["lokr_t2"], where);
  const first = kroneckerPart(parts, "lokr_w1", where);
  const second = kroneckerPart(parts, "lokr_w2", where);
  const rank = first.rank * second.rank;
  checkRank(rank, where);
  const name = nameOf(parts);
  return {
    alphaRank: second.isFactored ? second.rank : first.isFactored ? first.rank : undefined,
    a: kronTensor(`${name} A`, first.inner, second.inner),
    b: kronTensor(`${name} B`, first.outer, second.outer),
  };
}

interface KroneckerPart {
  readonly outer: Matrix;
  readonly inner: Matrix;
  readonly rank: number;
  readonly isFactored: boolean;
}

function kroneckerPart(parts: Parts, name: string, where: string): KroneckerPart {
  if (!parts.has(name)) {
    const [outer, inner] = [matrix(parts, `${name}_a`, where), matrix(parts, `${name}_b`, where)];
    if (outer.columns !== inner.rows) throw badShapes(parts, where);
    return { outer, inner, rank: inner.rows, isFactored: true };
  }
  const full = matrix(parts, name, where);
  // The smaller side is the rank: identity · full, or full · identity.
  return full.columns <= full.rows
    ? { outer: full, inner: identity(full.columns), rank: full.columns, isFactored: false }
    : { outer: identity(full.rows), inner: full, rank: full.rows, isFactored: false };
}

function kronTensor(name: string, first: Matrix, second: Matrix): StoredTensor {
  const shape = [first.rows * second.rows, first.columns * second.columns];
  return computedTensor(
    name,
    shape,
    async () => kron(await first.read(), await second.read(), first, second),
  );
}

type Extent = Pick<Matrix, "rows" | "columns">;

function kron(x: Float32Array, y: Float32Array, first: Extent, second: Extent): Float32Array<ArrayBuffer> {
  const width = first.columns * second.columns;
  const result = new Float32Array(first.rows * second.rows * width);
  for (let i = 0; i < first.rows; i++) {
    for (let j = 0; j < first.columns; j++) {
      const factor = x[i * first.columns + j]!;
      for (let k = 0; k < second.rows; k++) {
        const to = (i * second.rows + k) * width + j * second.columns;
        for (let l = 0; l < second.columns; l++) result[to + l] = factor * y[k * second.columns + l]!;
      }
    }
  }
  return result;
}

/** Row (p, q) is the elementwise product of row p of `x` and row q of `y`. */
function rowProducts(
  x: Float32Array,
  y: Float32Array,
  rowsX: number,
  rowsY: number,
  width: number,
): Float32Array<ArrayBuffer> {
  const result = new Float32Array(rowsX * rowsY * width);
  for (let p = 0; p < rowsX; p++) {
    for (let q = 0; q < rowsY; q++) {
      const to = (p * rowsY + q) * width;
      for (let i = 0; i < width; i++) result[to + i] = x[p * width + i]! * y[q * width + i]!;
    }
  }
  return result;
}

/** Column (p, q) is the elementwise product of column p of `x` and column q of `y`. */
function columnProducts(
  x: Float32Array,
  y: Float32Array,
  rows: number,
  columnsX: number,
  columnsY: number,
): Float32Array<ArrayBuffer> {
  const result = new Float32Array(rows * columnsX * columnsY);
  let to = 0;
  for (let row = 0; row < rows; row++) {
    for (let p = 0; p < columnsX; p++) {
      for (let q = 0; q < columnsY; q++) result[to++] = x[row * columnsX + p]! * y[row * columnsY + q]!;
    }
  }
  return result;
}

function matrix(parts: Parts, name: string, where: string): Matrix {
  const tensor = parts.get(name);
  if (!tensor) {
    throw new FormatError(
      "incomplete_pair",
      `the module has ${[...parts.keys()].join(", ")} but no ${name}`,
      "The adapter is incomplete: fetch or save it again.",
      where,
    );
  }
  checkFloat(tensor, where);
  const [rows, columns] = tensor.shape;
  if (tensor.shape.length !== 2 || !rows || !columns) throw cannotExpand(tensor, where);
  return { rows, columns, read: () => tensor.readFloat32() };
}

function identity(size: number): Matrix {
  const values = new Float32Array(size * size);
  for (let i = 0; i < size; i++) values[i * size + i] = 1;
  return { rows: size, columns: size, read: () => Promise.resolve(values) };
}

function refuseTucker(parts: Parts, names: readonly string[], where: string): void {
  const found = names.map((name) => parts.get(name)).find((tensor) => tensor !== undefined);
  if (found) throw cannotExpand(found, where);
}

function cannotExpand(tensor: StoredTensor, where: string): FormatError {
  return new FormatError(
    "cannot_expand",
    `${tensor.name} has the shape ${shapeText(tensor)}; only plain matrices are expanded`,
    `Leave the tensors out with ${dropAdvice(tensor.name.replace(/\.[^.]*$/, "") + "*")}, or the adapter.`,
    where,
  );
}

function badShapes(parts: Parts, where: string): FormatError {
  const shapes = [...parts].map(([name, tensor]) => `${name} ${shapeText(tensor)}`).join(", ");
  return new FormatError(
    "shape_mismatch",
    `the shapes do not fit each other: ${shapes}`,
    "The adapter is damaged: fetch or save it again.",
    where,
  );
}

function nameOf(parts: Parts): string {
  return parts.values().next().value!.name;
}
