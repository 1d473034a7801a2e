import type { LoraModule } from "../adapter.ts";
import { FormatError } from "../errors.ts";
import { rowsOfTensor, selectedColumns, selectedRows } from "../tensors/derived_tensor.ts";

/** A part of a fused projection. */
export interface SplitPart {
  readonly name: string;
  /** Rows of ΔW, from where the part before ends. */
  readonly rows: number;
}

/**
 * Splits a fused projection into the projections that its rows belong to: B is cut, A is shared. Where B is zero for
 * a part in some columns, as in a file whose split adapters were fused, the part leaves these out, so that splitting
 * undoes fusing with the rank it had. Exact.
 *
 * @throws {FormatError} `cannot_split` where the parts' rows are not the module's
 */
export async function splitModule(module: LoraModule, parts: readonly SplitPart[]): Promise<LoraModule[]> {
  const total = parts.reduce((sum, { rows }) => sum + rows, 0);
  if (total !== module.outFeatures) throw cannotSplit(module, parts);
  const values = await module.b.readFloat32();
  let start = 0;
  return parts.map(({ name, rows }) => {
    const [from, to] = [start, start + rows];
    start = to;
    const used = usedColumns(values.subarray(from * module.rank, to * module.rank), module.rank);
    return part(module, name, from, to, used);
  });
}

function part(
  module: LoraModule,
  name: string,
  from: number,
  to: number,
  used: readonly number[],
): LoraModule {
  const b = rowsOfTensor(module.b, from, to);
  const rank = used.length;
  const factors = rank === module.rank
    ? { a: module.a, b }
    : { a: selectedRows(module.a, used), b: selectedColumns(b, used) };
  const { inFeatures, scale, form } = module;
  return { name, rank, inFeatures, outFeatures: to - from, scale, alpha: scale * rank, form, ...factors };
}

/** The columns that hold something else than zeros; at least one. */
function usedColumns(rows: Float32Array, rank: number): number[] {
  const isUsed = new Uint8Array(rank);
  for (let i = 0; i < rows.length; i++) if (rows[i] !== 0) isUsed[i % rank] = 1;
  const used = Array.from(isUsed.keys()).filter((column) => isUsed[column] === 1);
  return used.length > 0 ? used : [0];
}

function cannotSplit(module: LoraModule, parts: readonly SplitPart[]): FormatError {
  const expected = parts.map(({ name, rows }) => `${name.split(".").at(-1)} ${rows}`).join(", ");
  return new FormatError(
    "cannot_split",
    `${module.name} has ${module.outFeatures} rows, which are not those of ${expected}`,
    "Check that the adapters are of one base model.",
    module.name,
  );
}
