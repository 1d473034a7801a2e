import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "@lora-loom/formats";
import { pack, unpack } from "../resume/packed.ts";
import type { HostPair, LearnerState } from "./learner.ts";
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

/** What the file says beside the tensors, which follow in a fixed order: by module value, mean, square and best, each A and B. */
interface Header {
  readonly fingerprint: string;
  readonly step: number;
  readonly history: RefinementHistory;
  readonly modules: readonly string[];
  readonly hasBest: boolean;
}

const FILE = "checkpoint.bin";

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
    const { fingerprint } = this;
    const header: Header = { fingerprint, step, history, modules, hasBest: best !== undefined };
    await mkdir(this.path, { recursive: true });
    await writeFileAtomic(
      join(this.path, FILE),
      pack({ value: header, tensors: pairs.flatMap(({ a, b }) => [a, b]) }),
    );
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
    await rm(join(this.path, FILE), { force: true });
  }

  #parse(bytes: Uint8Array<ArrayBuffer>): Checkpoint | undefined {
    const { value, tensors } = unpack(bytes);
    const header = value as Header;
    if (header.fingerprint !== this.fingerprint) return undefined;
    const pairs = Array.from(
      { length: tensors.length / 2 },
      (_, i): HostPair => ({ a: tensors[2 * i]!, b: tensors[2 * i + 1]! }),
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
