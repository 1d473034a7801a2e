import { promises as fs } from "node:fs";
import type { AdapterSpec, AdapterWriter, ModuleSpec } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { narrow } from "../../numbers/narrow.ts";
import type { TensorDescription } from "../../safetensors/write.ts";

export type Floats = Float32Array | Float64Array;

/** A file that takes the bytes of announced tensors, in any order. */
export interface TensorSink {
  readonly path: string;
  write(name: string, bytes: Uint8Array): Promise<void>;
  finish(): Promise<void>;
  abort(): Promise<void>;
}

/** How a layout stores one module. */
export interface StoredModule {
  /** r in the file: factors of smaller rank are padded with zeros. */
  readonly rank: number;
  /** What B is multiplied by, because the layout does not store it. */
  readonly factor: number;
  readonly a: StoredFactor;
  readonly b: StoredFactor;
  /** Tensors that are known before the factors are, such as alpha. */
  readonly constants: readonly { readonly entry: TensorDescription; readonly bytes: Uint8Array }[];
}

/** How a layout stores one factor. */
export interface StoredFactor {
  readonly name: string;
  readonly shape: readonly number[];
  /** From the factor as given (A [r, in] or B [out, r], row-major) to the order in the file. Default: as given. */
  readonly arrange?: (values: Floats) => Floats;
}

/** Every tensor of an adapter, in the dtype of its specification. */
export function entriesOf(
  stored: Iterable<StoredModule>,
  dtype: TensorDescription["dtype"],
): TensorDescription[] {
  return [...stored].flatMap(({ a, b, constants }) => [
    { name: a.name, dtype, shape: a.shape },
    { name: b.name, dtype, shape: b.shape },
    ...constants.map(({ entry }) => entry),
  ]);
}

/** The first name that stands there twice. */
function duplicateIn(modules: readonly ModuleSpec[]): string | undefined {
  const names = new Set<string>();
  for (const { name } of modules) {
    if (names.has(name)) return name;
    names.add(name);
  }
  return undefined;
}

/**
 * Checks what every layout asks of a specification.
 *
 * @throws {FormatError} `invalid_rank`, `no_modules`, `duplicate_key`
 */
export function checkSpec({ modules, rank }: AdapterSpec, where: string): void {
  if (!Number.isSafeInteger(rank) || rank < 1) {
    throw new FormatError(
      "invalid_rank",
      `the rank is ${rank}, at least 1 was expected`,
      "Choose a positive rank.",
      where,
    );
  }
  const tooHigh = modules.find((module) =>
    !(Number.isInteger(module.rank ?? 0) && (module.rank ?? 0) <= rank)
  );
  if (tooHigh) {
    throw new FormatError(
      "invalid_rank",
      `the module has rank ${tooHigh.rank}, a whole number up to the adapter's ${rank} was expected`,
      "Give the adapter the rank of its largest module.",
      `${where} ${tooHigh.name}`,
    );
  }
  const duplicate = duplicateIn(modules);
  if (duplicate !== undefined) {
    throw new FormatError(
      "duplicate_key",
      `the module ${duplicate} was announced twice`,
      "Announce each module once.",
      `${where} ${duplicate}`,
    );
  }
  if (modules.length === 0) {
    throw new FormatError(
      "no_modules",
      "an adapter without modules was asked for",
      "Widen the module filters.",
      where,
    );
  }
}

/** The file layouts' common part: an adapter whose modules are pairs of factors in one file. */
export class FactorWriter implements AdapterWriter {
  readonly #spec: AdapterSpec;
  readonly #sink: TensorSink;
  readonly #modules: ReadonlyMap<string, ModuleSpec>;
  readonly #stored: ReadonlyMap<string, StoredModule>;
  readonly #companions: readonly Companion[];

  /**
   * @param stored by module name, for every module of the specification
   * @param companions files beside the weights, written when these are complete
   */
  constructor(
    spec: AdapterSpec,
    sink: TensorSink,
    stored: ReadonlyMap<string, StoredModule>,
    companions: readonly Companion[] = [],
  ) {
    this.#spec = spec;
    this.#sink = sink;
    this.#modules = new Map(spec.modules.map((module) => [module.name, module]));
    this.#stored = stored;
    this.#companions = companions;
  }

  async write(name: string, a: Floats, b: Floats): Promise<void> {
    const where = `${this.#sink.path} ${name}`;
    const module = this.#modules.get(name);
    if (!module) throw notAnnounced(name, where);
    const stored = this.#stored.get(name)!;
    const rank = rankOf(module, stored.rank, a, b, where);
    const paddedA = padRows(a, module.inFeatures, stored.rank);
    const paddedB = scaled(padColumns(b, module.outFeatures, rank, stored.rank), stored.factor);
    await this.#writeFactor(stored.a, paddedA, `${where} lora_A`);
    await this.#writeFactor(stored.b, paddedB, `${where} lora_B`);
  }

  async finish(): Promise<void> {
    for (const { constants } of this.#stored.values()) {
      for (const { entry, bytes } of constants) await this.#sink.write(entry.name, bytes);
    }
    await this.#sink.finish();
    for (const { write } of this.#companions) await write();
  }

  async abort(): Promise<void> {
    await this.#sink.abort();
    for (const { path } of this.#companions) await fs.rm(path, { force: true });
  }

  #writeFactor({ name, arrange }: StoredFactor, values: Floats, where: string): Promise<void> {
    return this.#sink.write(name, narrow(arrange ? arrange(values) : values, this.#spec.dtype, where));
  }
}

/** A file that belongs to the weights. */
export interface Companion {
  readonly path: string;
  write(): Promise<void>;
}

function notAnnounced(name: string, where: string): FormatError {
  return new FormatError(
    "module_not_found",
    `the module ${name} was not announced`,
    "Announce every module.",
    where,
  );
}

function rankOf(
  { inFeatures, outFeatures }: ModuleSpec,
  limit: number,
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  where: string,
): number {
  const rank = a.length / inFeatures;
  if (Number.isInteger(rank) && rank <= limit && b.length === outFeatures * rank) return rank;
  throw new FormatError(
    "shape_mismatch",
    `A has ${a.length} and B ${b.length} values; expected r·${inFeatures} and ${outFeatures}·r with r ≤ ${limit}`,
    "Pass A as [r, in] and B as [out, r].",
    where,
  );
}

function zeros(like: Floats, length: number): Floats {
  return like instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
}

function padRows(a: Floats, inFeatures: number, rank: number): Floats {
  if (a.length === rank * inFeatures) return a;
  const padded = zeros(a, rank * inFeatures);
  padded.set(a);
  return padded;
}

function padColumns(b: Floats, outFeatures: number, from: number, to: number): Floats {
  if (from === to) return b;
  const padded = zeros(b, outFeatures * to);
  for (let row = 0; row < outFeatures; row++) padded.set(b.subarray(row * from, (row + 1) * from), row * to);
  return padded;
}

/** In float64, so that the product is rounded once, to the output's dtype. */
function scaled(values: Floats, factor: number): Floats {
  return factor === 1 ? values : Float64Array.from(values, (value) => value * factor);
}

/** The transpose of a row-major matrix. */
export function transpose(values: Floats, rows: number, columns: number): Floats {
  const result = zeros(values, values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = values[row * columns + column]!;
    }
  }
  return result;
}
