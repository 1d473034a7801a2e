import { MergeError } from "../errors.ts";
import type {
  MergedFactors,
  MethodDescription,
  ModuleContext,
  ModuleMethod,
  Parameters,
  PlannedRanks,
} from "../methods/method.ts";
import { pooledRank } from "../methods/truncate.ts";
import { rankPolicy } from "../plan/rank_policy.ts";
import { PEFT_COMPATIBLE, RANK } from "./common_parameters.ts";
import { checkEqualRanks } from "./equal_ranks.ts";
import { deltaEntries, type Entries, matrixEntries } from "./entries.ts";
import { fuse, type FuseRule, type Term } from "./fuse.ts";
import { downloadFactors, type WeightedHostFactors } from "./host_factors.ts";
import { largeMatrix, type MatrixStorage, matrixStorage } from "./large_matrix.ts";
import { balancedFactors, leadingTriplets } from "./matrix_best_rank.ts";
import { type Rows, stack } from "./rows.ts";
import type { Sparsifier } from "./sparsify.ts";

/** Which tensor a sparsifier is made for: random ones must not share their numbers. */
export interface TensorName {
  readonly module: string;
  readonly adapter: number;
  readonly tensor: "A" | "B" | "delta";
  readonly seed: number;
}

/** What tells one elementwise method from another. */
export interface ElementwiseDefinition
  extends Pick<MethodDescription, "name" | "title" | "summary" | "formula" | "source" | "parameters"> {
  /** Whether PEFT's method of this name merges A and B apart; otherwise it works on ΔW, as all do by default. */
  readonly peftMergesFactors: boolean;
  sparsifier(entries: Entries, tensor: TensorName, parameters: Parameters): Sparsifier;
  rule(parameters: Parameters): FuseRule;
}

function mergesFactors(definition: ElementwiseDefinition, parameters: Parameters): boolean {
  return definition.peftMergesFactors && parameters.peft_compatible === true;
}

/**
 * A method that works on single entries: on those of ΔW, whose result is cut to `rank` by its singular values, or with
 * `peft_compatible` where PEFT does so, on those of A and of B.
 */
export function elementwiseMethod(definition: ElementwiseDefinition): ModuleMethod {
  const { name, title, summary, formula, source, parameters } = definition;
  return {
    kind: "module",
    name,
    title,
    summary,
    formula,
    source,
    parameters: [...parameters, RANK, PEFT_COMPATIBLE],
    needs: { baseModel: false, calibration: false },
    outputRank(ranks, values) {
      if (mergesFactors(definition, values)) return ranks[0]!;
      // What a policy may choose from is the rank that the sum of the deltas has.
      if (rankPolicy(values.rank)) return pooledRank(ranks);
      return values.rank as number | undefined ?? Math.max(...ranks);
    },
    check(plan, values) {
      if (mergesFactors(definition, values)) checkFactorMerge(name, plan, values);
      else checkRank(name, plan, values);
    },
    async merge(sources, context) {
      const factors = await downloadFactors(context.device, sources);
      return mergesFactors(definition, context.parameters)
        ? mergeFactors(definition, factors, context)
        : await mergeDeltas(definition, factors, context);
    },
  };
}

/** Entry by entry, a result has full rank; only the sizes of the modules limit it. */
function checkRank(name: string, { modules }: PlannedRanks, { rank }: Parameters): void {
  const most = Math.max(...modules.map(({ inFeatures, outFeatures }) => Math.min(inFeatures, outFeatures)));
  if (rank === undefined || rankPolicy(rank) || rank as number <= most) return;
  throw new MergeError(
    "rank_out_of_range",
    `${name} cannot give rank ${rank}: the modules have at most ${most} input or output features`,
    `choose a rank from 1 to ${most}, for example --set parameters.rank=${Math.min(16, most)}`,
    "parameters.rank",
  );
}

function checkFactorMerge(name: string, { modules }: PlannedRanks, parameters: Parameters): void {
  const ranks = [...new Set(modules.flatMap((module) => module.ranks))];
  checkEqualRanks(`${name} with peft_compatible`, modules, "set parameters.peft_compatible=false");
  const { rank } = parameters;
  if (rank === undefined || ranks.every((own) => own === rank)) return;
  throw new MergeError(
    "parameters_conflict",
    `${name} with peft_compatible keeps the adapters' own rank (${ranks.join(", ")}), found rank ${rank}`,
    "remove parameters.rank, or set parameters.peft_compatible=false",
    "parameters.rank",
  );
}

/** As PEFT: A' from the A's and B' from the B's, each weighted with √|w s|; A carries the sign of w s. */
function mergeFactors(
  definition: ElementwiseDefinition,
  factors: readonly WeightedHostFactors[],
  context: ModuleContext,
): MergedFactors {
  const root = ({ weight, scale }: WeightedHostFactors) => Math.sqrt(Math.abs(weight * scale));
  const { device } = context;
  const { rank, inFeatures, outFeatures } = factors[0]!;
  const a = fuseInMemory(definition, context, "A", factors, (source) => ({
    entries: matrixEntries(source.a, source.rank, source.inFeatures),
    weight: source.weight * source.scale < 0 ? -root(source) : root(source),
  }));
  const b = fuseInMemory(definition, context, "B", factors, (source) => ({
    entries: matrixEntries(source.b, source.outFeatures, source.rank),
    weight: root(source),
  }));
  return { a: device.upload(a.values, [rank, inFeatures]), b: device.upload(b.values, [outFeatures, rank]) };
}

async function mergeDeltas(
  definition: ElementwiseDefinition,
  factors: readonly WeightedHostFactors[],
  context: ModuleContext,
): Promise<MergedFactors> {
  const { device, rank, seed } = context;
  const { inFeatures, outFeatures } = factors[0]!;
  const { values, norm } = fuseInMemory(definition, context, "delta", factors, (source) => ({
    entries: deltaEntries(source),
    weight: source.weight,
  }));
  using matrix = largeMatrix(device, values, outFeatures, inFeatures);
  const triplets = await leadingTriplets(
    matrix,
    Math.min(rank, inFeatures, outFeatures),
    pooledRows(factors),
    seed,
  );
  const { a, b } = balancedFactors(triplets);
  const kept = triplets.sigma.reduce((sum, sigma) => sum + sigma ** 2, 0);
  return {
    a: device.upload(a.data, [a.count, inFeatures]),
    b: device.upload(b, [outFeatures, a.count]),
    figures: {
      spectrum: [...triplets.sigma],
      rank_loss: norm === 0 ? 0 : Math.sqrt(Math.max(0, 1 - kept / norm ** 2)),
    },
  };
}

/** Runs the elementwise part and keeps its result, a single matrix, in memory. */
function fuseInMemory(
  definition: ElementwiseDefinition,
  { device, module, seed, parameters }: ModuleContext,
  tensor: TensorName["tensor"],
  factors: readonly WeightedHostFactors[],
  describe: (source: WeightedHostFactors) => Omit<Term, "sparsifier">,
): { values: MatrixStorage; norm: number } {
  const terms = factors.map((source): Term => {
    const { entries, weight } = describe(source);
    const name = { module, seed, tensor, adapter: source.adapter };
    return { entries, weight, sparsifier: definition.sparsifier(entries, name, parameters) };
  });
  const { rows, columns } = terms[0]!.entries;
  const values = matrixStorage(device, rows * columns);
  let squares = 0;
  fuse(terms, definition.rule(parameters), (tile, from) => {
    values.set(tile, from * columns);
    for (let i = 0; i < tile.length; i++) squares += tile[i]! * tile[i]!;
  });
  return { values, norm: Math.sqrt(squares) };
}

/** The rows of all A's: near their span the rows of the result lie. */
function pooledRows(factors: readonly WeightedHostFactors[]): Rows {
  const { inFeatures } = factors[0]!;
  const sets = factors.map(({ rank, a }): Rows => ({
    count: rank,
    length: inFeatures,
    data: Float64Array.from(a),
  }));
  return stack(sets, inFeatures);
}
