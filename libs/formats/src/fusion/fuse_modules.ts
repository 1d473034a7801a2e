import type { LoraModule } from "../adapter.ts";
import { FormatError } from "../errors.ts";
import { computedTensor } from "../tensors/derived_tensor.ts";

/** A part of a projection that is to be fused. */
export interface FusePart {
  readonly rows: number;
  /** Absent where the adapter leaves this part alone: its rows are zero. */
  readonly module: LoraModule | undefined;
}

/**
 * Fuses projections of the same input into one whose rows are theirs, one part after the other. Where all share one A,
 * as after splitting, B is stacked and the rank stays; else A is stacked and B block-diagonal, and the rank is the sum.
 *
 * @throws {FormatError} `cannot_fuse` where the parts have unequal inputs, or none is there
 */
export async function fuseModules(name: string, parts: readonly FusePart[]): Promise<LoraModule> {
  const present = parts.flatMap(({ module }) => module ?? []);
  const [first, ...others] = present;
  if (!first || !parts.every(fits)) throw cannotFuse(name, parts);
  const { inFeatures } = first;
  if (others.some((module) => module.inFeatures !== inFeatures)) throw cannotFuse(name, parts);
  const outFeatures = parts.reduce((sum, { rows }) => sum + rows, 0);
  const sharesA = await haveEqualA(present);
  const rank = sharesA ? first.rank : present.reduce((sum, module) => sum + module.rank, 0);
  // One scale stays outside; several are multiplied into the blocks.
  const scale = others.every((module) => module.scale === first.scale) ? first.scale : 1;
  const fused = { name, rank, inFeatures, outFeatures, scale, alpha: scale * rank };
  const a = sharesA
    ? first.a
    : computedTensor(first.a.name, [rank, inFeatures], () => stack(present, inFeatures));
  const b = computedTensor(first.b.name, [outFeatures, rank], () => blocks(parts, rank, scale, sharesA));
  return { ...fused, a, b };
}

function fits({ rows, module }: FusePart): boolean {
  return !module || (module.outFeatures === rows && (module.form ?? { kind: "linear" }).kind === "linear");
}

async function haveEqualA(modules: readonly LoraModule[]): Promise<boolean> {
  const [first, ...others] = modules;
  const expected = await first!.a.readFloat32();
  for (const { rank, a } of others) {
    if (rank !== first!.rank) return false;
    const values = await a.readFloat32();
    if (values.some((value, index) => value !== expected[index])) return false;
  }
  return others.length > 0;
}

async function stack(
  modules: readonly LoraModule[],
  inFeatures: number,
): Promise<Float32Array<ArrayBuffer>> {
  const rows = modules.reduce((sum, { rank }) => sum + rank, 0);
  const result = new Float32Array(rows * inFeatures);
  let position = 0;
  for (const { a } of modules) {
    const values = await a.readFloat32();
    result.set(values, position);
    position += values.length;
  }
  return result;
}

async function blocks(
  parts: readonly FusePart[],
  rank: number,
  scale: number,
  sharesA: boolean,
): Promise<Float32Array<ArrayBuffer>> {
  const outFeatures = parts.reduce((sum, { rows }) => sum + rows, 0);
  const result = new Float32Array(outFeatures * rank);
  let row = 0;
  let column = 0;
  for (const { rows, module } of parts) {
    if (module) {
      const values = await module.b.readFloat32();
      const factor = module.scale / scale;
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < module.rank; j++) {
          result[(row + i) * rank + column + j] = factor * values[i * module.rank + j]!;
        }
      }
      if (!sharesA) column += module.rank;
    }
    row += rows;
  }
  return result;
}

function cannotFuse(name: string, parts: readonly FusePart[]): FormatError {
  const found = parts.map(({ rows, module }) =>
    module
      ? `${module.name.split(".").at(-1)} [${module.outFeatures}, ${module.inFeatures}]`
      : `${rows} rows of zeros`
  ).join(", ");
  return new FormatError(
    "cannot_fuse",
    `${name} cannot be made of ${found}`,
    "Check that the adapter is of the model that its names say.",
    name,
  );
}
