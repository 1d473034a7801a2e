import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { HostArray, HostPair, LearnerState } from "./learner.ts";
import type { RefinementHistory } from "./history.ts";

/** Where a refinement stands. */
export interface Checkpoint {
  /** Steps done. */
  readonly step: number;
  readonly history: RefinementHistory;
  readonly learner: LearnerState;
  /** The factors that agreed best so far; absent while those are the merge before refinement. */
  readonly best: ReadonlyMap<string, HostPair> | undefined;
}

interface ArrayEntry {
  readonly shape: readonly number[];
  readonly type: "f32" | "f64";
  readonly offset: number;
}

interface Header {
  readonly fingerprint: string;
  readonly step: number;
  readonly history: RefinementHistory;
  readonly modules: readonly string[];
  readonly hasBest: boolean;
  /** In a fixed order: by module value, mean, square and best, each A and B. */
  readonly arrays: readonly ArrayEntry[];
}

const FILE = "checkpoint.bin";
/** Bytes before the header: its length. */
const PREFIX = 8;

/** Keeps the latest checkpoint of one refinement in a folder. A file is complete or absent. */
export class CheckpointFolder {
  /**
   * @param path the folder; made when first needed
   * @param fingerprint of everything that the refinement depends on
   */
  constructor(readonly path: string, readonly fingerprint: string) {}

  async save({ step, history, learner, best }: Checkpoint): Promise<void> {
    const modules = [...learner.keys()];
    const pairs = modules.flatMap((module) => {
      const { value, mean, square } = learner.get(module)!;
      return best ? [value, mean, square, best.get(module)!] : [value, mean, square];
    });
    let offset = 0;
    const arrays: ArrayEntry[] = [];
    const parts: Uint8Array[] = [];
    for (const { shape, values } of pairs.flatMap(({ a, b }) => [a, b])) {
      arrays.push({ shape, type: values instanceof Float64Array ? "f64" : "f32", offset });
      parts.push(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      offset += values.byteLength;
    }
    const { fingerprint } = this;
    const header: Header = { fingerprint, step, history, modules, hasBest: best !== undefined, arrays };
    const text = new TextEncoder().encode(JSON.stringify(header));
    const prefix = new Uint8Array(PREFIX);
    new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
    await mkdir(this.path, { recursive: true });
    const file = join(this.path, FILE);
    await writeFile(`${file}.new`, [prefix, text, ...parts]);
    await rename(`${file}.new`, file);
  }

  /** The latest checkpoint; nothing where there is none, and `foreign` where it belongs to another refinement or is damaged. */
  async load(): Promise<Checkpoint | "foreign" | undefined> {
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = new Uint8Array(await readFile(join(this.path, FILE)));
    } catch {
      return undefined;
    }
    try {
      return this.#parse(bytes) ?? "foreign";
    } catch {
      return "foreign";
    }
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }

  #parse(bytes: Uint8Array<ArrayBuffer>): Checkpoint | undefined {
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(PREFIX, PREFIX + length))) as Header;
    if (header.fingerprint !== this.fingerprint) return undefined;
    const arrays = header.arrays.map(({ shape, type, offset }) => {
      const start = PREFIX + length + offset;
      const count = shape.reduce((product, size) => product * size, 1);
      const size = type === "f64" ? 8 : 4;
      // A copy, because the elements need not start where an array of their type may.
      const buffer = bytes.buffer.slice(start, start + count * size);
      const values: HostArray = type === "f64"
        ? new Float64Array(buffer, 0, count)
        : new Float32Array(buffer, 0, count);
      return { shape, values };
    });
    const pairs = Array.from(
      { length: arrays.length / 2 },
      (_, i): HostPair => ({ a: arrays[2 * i]!, b: arrays[2 * i + 1]! }),
    );
    const each = header.hasBest ? 4 : 3;
    const learner = new Map(header.modules.map((module, i) => [module, {
      value: pairs[each * i]!,
      mean: pairs[each * i + 1]!,
      square: pairs[each * i + 2]!,
    }]));
    const best = header.hasBest
      ? new Map(header.modules.map((module, i) => [module, pairs[each * i + 3]!]))
      : undefined;
    return { step: header.step, history: header.history, learner, best };
  }
}
