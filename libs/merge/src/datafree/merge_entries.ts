import type { ModuleContext } from "../methods/method.ts";
import type { ChoiceParameter, ParameterSpec } from "../methods/parameters.ts";
import { DENSITY, MAJORITY_SIGN_METHOD } from "./common_parameters.ts";
import { type Entries, matrixEntries } from "./entries.ts";
import { noiseOf } from "./core_method.ts";
import { fuse, type FuseRule } from "./fuse.ts";
import type { Matrix } from "./matrix.ts";
import { KEEP_ALL, keepAtRandom, keepLargest, type Sparsifier } from "./sparsify.ts";
import { EntryRandom } from "./threefry.ts";

const MERGE: ChoiceParameter = {
  name: "merge",
  type: "choice",
  choices: ["ties", "dare_ties", "dare_linear", "magnitude_prune", "linear"],
  default: "ties",
  help: "how coordinates are merged, entry by entry",
};

/** The parameters of methods that change coordinates first and then merge entry by entry. */
export const MERGE_PARAMETERS: readonly ParameterSpec[] = [MERGE, DENSITY, MAJORITY_SIGN_METHOD];

/** A matrix that takes part, with its weight and its adapter's position in the recipe. */
export interface WeightedMatrix {
  readonly matrix: Matrix;
  readonly weight: number;
  readonly adapter: number;
}

/** Merges small matrices of one shape, entry by entry, as the parameters of {@linkcode MERGE_PARAMETERS} say. */
export function mergeEntries(
  sources: readonly WeightedMatrix[],
  { parameters, module, seed, device }: Pick<ModuleContext, "parameters" | "module" | "seed" | "device">,
): Matrix {
  const { rows, columns } = sources[0]!.matrix;
  const out = new Float64Array(rows * columns);
  const merge = parameters.merge as string;
  const density = parameters.density as number;
  const terms = sources.map(({ matrix, weight, adapter }) => {
    const entries = matrixEntries(matrix.data, rows, columns);
    const random = new EntryRandom(seed, module, adapter, "core");
    return { entries, weight, sparsifier: sparsifierOf(merge, entries, density, random) };
  });
  const sign = parameters.majority_sign_method as "total" | "frequency";
  const rule: FuseRule = merge.endsWith("ties")
    ? { rule: "elect", sign, unweightedVote: false, tie: noiseOf(device) }
    : { rule: "sum" };
  fuse(terms, rule, (values, from) => out.set(values, from * columns));
  return { rows, columns, data: out };
}

function sparsifierOf(merge: string, entries: Entries, density: number, random: EntryRandom): Sparsifier {
  if (merge === "linear") return KEEP_ALL;
  return merge.startsWith("dare") ? keepAtRandom(random, density) : keepLargest(entries, density);
}
