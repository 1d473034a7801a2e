import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { isAbandoned, randomSuffix, releaseSuffix, syncDirectory } from "@lora-loom/formats";
import { pack, type Packed, unpack } from "./packed.ts";

/** Everything that decides about the bytes of a result, by the name that a user knows it by. */
export type Identity = Readonly<Record<string, string>>;

/** What was found of earlier runs, apart from the journal that goes on. */
export interface Found {
  /** Whether the end of the journal was damaged, as a power failure leaves it, and dropped. */
  readonly isCut: boolean;
  /** Journals of other work, which are not used: the names in which each differs; `damaged` where it cannot be read. */
  readonly others: readonly (readonly string[] | "damaged")[];
}

const NAME = /^journal-(.+)\.bin$/;
/** Before each record: the length of its bytes, and their SHA-256. */
const LENGTH = 8;
const DIGEST = 32;

/** Where a record is in the file. */
interface Place {
  readonly offset: number;
  readonly length: number;
}

interface Contents {
  readonly identity: Identity | undefined;
  readonly places: ReadonlyMap<string, Place>;
  /** Where the last whole record ends. */
  readonly end: number;
  readonly isCut: boolean;
}

/**
 * Finished steps of one piece of work, appended to a file as they are done. A record counts only when all of it reached the disk, so that a
 * process may be killed, or the power may go, at any moment. Each process writes a file of its own, and takes over the files of
 * processes that are gone.
 */
export class JournalFile {
  readonly #identity: Identity;
  readonly #places = new Map<string, Place>();
  /** Files of other work, which go when this one has something to keep. */
  readonly #stale: string[] = [];
  readonly #suffixes: string[] = [];
  #path: string | undefined;
  #handle: FileHandle | undefined;
  #end = 0;

  private constructor(readonly folder: string, identity: Identity) {
    this.#identity = identity;
  }

  /** Takes up what a run of the same work left in `folder`, where there is something. Nothing is written yet. */
  static async open(folder: string, identity: Identity): Promise<{ journal: JournalFile; found: Found }> {
    const journal = new JournalFile(folder, identity);
    return { journal, found: await journal.#takeOver() };
  }

  /** Names of the steps that are kept, in the order in which they were done. */
  get steps(): readonly string[] {
    return [...this.#places.keys()];
  }

  has(step: string): boolean {
    return this.#places.has(step);
  }

  /** What was kept of a step that it has. */
  async read(step: string): Promise<Packed> {
    const { offset, length } = this.#places.get(step)!;
    const { value, tensors } = unpack(await readRange(this.#handle!, offset, length));
    return { value: (value as StepValue).value, tensors };
  }

  /** Keeps a step; when this returns it is on the disk. */
  async append(step: string, { value, tensors }: Packed): Promise<void> {
    if (!this.#handle) await this.#begin();
    const stepValue: StepValue = { step, value };
    this.#places.set(step, await this.#write({ value: stepValue, tensors }));
    await this.#handle!.datasync();
  }

  /** Lets go of the file and leaves it to a later run. */
  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
    this.#suffixes.splice(0).forEach(releaseSuffix);
  }

  /** Closes and removes it; journals of other work stay. */
  async discard(): Promise<void> {
    await this.close();
    this.#places.clear();
    if (this.#path) await rm(this.#path, { force: true });
  }

  /** Closes and removes it, and journals of other work that it found. */
  async remove(): Promise<void> {
    await this.discard();
    for (const path of this.#stale.splice(0)) await rm(path, { force: true });
  }

  async #takeOver(): Promise<Found> {
    let isCut = false;
    const others: (readonly string[] | "damaged")[] = [];
    for (const path of await this.#claimAbandoned()) {
      const handle = await open(path, "r+");
      const contents = await contentsOf(handle);
      const differences = contents.identity && differencesOf(contents.identity, this.#identity);
      if (differences?.length === 0 && contents.places.size > this.#places.size) {
        await this.#adopt(path, handle, contents);
        isCut = contents.isCut;
      } else {
        await handle.close();
        this.#stale.push(path);
        if (differences?.length !== 0) others.push(differences ?? "damaged");
      }
    }
    return { isCut, others };
  }

  async #adopt(path: string, handle: FileHandle, { places, end }: Contents): Promise<void> {
    if (this.#path) this.#stale.push(this.#path);
    await this.#handle?.close();
    await handle.truncate(end);
    this.#path = path;
    this.#handle = handle;
    this.#end = end;
    this.#places.clear();
    for (const [step, place] of places) this.#places.set(step, place);
  }

  /** Renames files whose process is gone, so that they belong to this one and to no other that looks at the same time. */
  async #claimAbandoned(): Promise<string[]> {
    const claimed: string[] = [];
    for (const name of (await namesIn(this.folder)).sort()) {
      const owner = NAME.exec(name)?.[1];
      if (owner === undefined || !isAbandoned(owner)) continue;
      const path = this.#newPath();
      try {
        await rename(join(this.folder, name), path);
      } catch (error) {
        if (isMissing(error)) continue;
        throw error;
      }
      claimed.push(path);
    }
    return claimed;
  }

  #newPath(): string {
    const suffix = randomSuffix();
    this.#suffixes.push(suffix);
    return join(this.folder, `journal-${suffix}.bin`);
  }

  async #begin(): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    for (const path of this.#stale.splice(0)) await rm(path, { force: true });
    this.#path = this.#newPath();
    this.#handle = await open(this.#path, "wx+");
    await this.#write({ value: this.#identity, tensors: [] });
    await syncDirectory(this.folder);
  }

  async #write(record: Packed): Promise<Place> {
    const parts = pack(record);
    const length = parts.reduce((sum, { length }) => sum + length, 0);
    const head = new Uint8Array(LENGTH + DIGEST);
    new DataView(head.buffer).setBigUint64(0, BigInt(length), true);
    const hash = createHash("sha256");
    for (const part of parts) hash.update(part);
    head.set(hash.digest(), LENGTH);
    let end = this.#end;
    for (const part of [head, ...parts]) end = await writeAll(this.#handle!, part, end);
    const place = { offset: this.#end + head.length, length };
    this.#end = end;
    return place;
  }
}

interface StepValue {
  readonly step: string;
  readonly value: unknown;
}

/** The names under which two identities differ. */
function differencesOf(left: Identity, right: Identity): string[] {
  const names = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...names].filter((name) => left[name] !== right[name]);
}

/** Reads a journal up to the first record that is not whole. */
async function contentsOf(handle: FileHandle): Promise<Contents> {
  const { size } = await handle.stat();
  const places = new Map<string, Place>();
  let identity: Identity | undefined;
  let end = 0;
  while (end < size) {
    const record = await recordAt(handle, end, size);
    if (!record) break;
    end = record.place.offset + record.place.length;
    if (identity) places.set((record.value as StepValue).step, record.place);
    else identity = record.value as Identity;
  }
  return { identity, places, end, isCut: end < size };
}

async function recordAt(
  handle: FileHandle,
  start: number,
  size: number,
): Promise<{ readonly place: Place; readonly value: unknown } | undefined> {
  const offset = start + LENGTH + DIGEST;
  if (offset > size) return undefined;
  const head = await readRange(handle, start, LENGTH + DIGEST);
  const length = Number(new DataView(head.buffer).getBigUint64(0, true));
  if (offset + length > size) return undefined;
  const bytes = await readRange(handle, offset, length);
  const digest = createHash("sha256").update(bytes).digest();
  if (!digest.equals(head.subarray(LENGTH))) return undefined;
  return { place: { offset, length }, value: unpack(bytes).value };
}

async function readRange(
  handle: FileHandle,
  offset: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw new Error("the journal ended while it was read");
    done += bytesRead;
  }
  return bytes;
}

/** Writes all of `bytes`; returns where they end. */
async function writeAll(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<number> {
  let done = 0;
  while (done < bytes.length) {
    done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
  return offset + done;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  return (error as { code?: unknown }).code === "ENOENT";
}
