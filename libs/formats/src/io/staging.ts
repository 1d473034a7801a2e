import { promises as fs, type Stats } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { refuseForeign } from "../earlier_result.ts";
import { FormatError } from "../errors.ts";
import { isAbandoned, isHeld, randomSuffix, releaseSuffix } from "./partial_names.ts";
import { RandomAccessFile } from "./random_access_file.ts";
import { syncDirectory } from "./sync_directory.ts";
import { fileError, systemCode, withFileErrors } from "./system_errors.ts";

/** A place beside a target, which appears under the target's name complete or not at all. */
export interface Staging {
  /** Where to write: a sibling of the target named `.NAME.partial-…`. */
  readonly path: string;
  /** Flushes everything to the disk and renames it to the target. */
  commit(): Promise<void>;
  /** Removes what was written and leaves the target as it was. Harmless after `commit`. */
  discard(): Promise<void>;
}

export interface StagingOptions {
  /** Replace an existing target that is an earlier result. It is moved aside first and put back if the new one cannot take its place. */
  readonly force?: boolean;
  /** Refuse to begin while another process stages the same target: one of the two would work in vain. */
  readonly exclusive?: boolean;
}

/**
 * Stages a folder: an empty sibling folder of `target` to write into, then `commit()` or `discard()`. What killed runs
 * left beside the same target is cleaned up, and a target that such a run had moved aside is put back.
 *
 * @throws {FormatError} `target_exists` without `force`; `not_a_result` with it, where anything but an earlier
 * result is there; `target_in_use` with `exclusive`; `permission_denied`, `disk_full`, …
 */
export async function stageDirectory(target: string, options: StagingOptions = {}): Promise<Staging> {
  const staging = await prepare(target, "folder", options);
  await withFileErrors("create", staging.path, () => fs.mkdir(staging.path));
  // After its own folder is there, so that of two that begin at once neither overlooks the other.
  const other = options.exclusive ? await otherStaging(target, staging.path) : undefined;
  if (other === undefined) return staging;
  await staging.discard();
  throw new FormatError(
    "target_in_use",
    `another run is writing ${resolve(target)}: ${other} belongs to a process that runs`,
    `Wait until it is done, or give another output. If nothing is writing there, remove ${other}.`,
    target,
  );
}

/** Stages a single file: as {@linkcode stageDirectory}, but nothing exists at `path` until the caller writes it. */
export function stageFile(target: string, options: StagingOptions = {}): Promise<Staging> {
  return prepare(target, "file", options);
}

/** Fills a staged folder through `fill` and commits it; discards it if `fill` throws. */
export async function replaceDirectory<T>(
  target: string,
  fill: (path: string) => Promise<T>,
  options: StagingOptions = {},
): Promise<T> {
  const staging = await stageDirectory(target, options);
  try {
    const result = await fill(staging.path);
    await staging.commit();
    return result;
  } catch (error) {
    await staging.discard();
    throw error;
  }
}

async function prepare(
  target: string,
  kind: "folder" | "file",
  { force = false }: StagingOptions,
): Promise<Staging> {
  const absolute = resolve(target);
  const parent = dirname(absolute);
  if (parent === absolute) {
    throw new FormatError("invalid_path", `${target} cannot be replaced`, "Name a folder below it.", target);
  }
  await createFolder(parent);
  await recoverFromKilledRuns(absolute);
  if (force) await refuseForeign(absolute, kind);
  else await refuseExisting(absolute);
  return new SiblingStaging(absolute, kind, force);
}

async function createFolder(path: string): Promise<void> {
  try {
    await fs.mkdir(path, { recursive: true });
  } catch (error) {
    // With `recursive` an existing folder is no error, so what exists here is a file.
    const isFile = systemCode(error) === "EEXIST";
    throw fileError(isFile ? Object.assign(new Error(), { code: "ENOTDIR" }) : error, "create", path);
  }
}

class SiblingStaging implements Staging {
  readonly path: string;
  readonly #target: string;
  readonly #kind: "folder" | "file";
  readonly #force: boolean;
  readonly #suffix = randomSuffix();

  constructor(target: string, kind: "folder" | "file", force: boolean) {
    this.#target = target;
    this.#kind = kind;
    this.#force = force;
    this.path = sibling(target, "partial", this.#suffix);
  }

  async commit(): Promise<void> {
    await syncTree(this.path);
    if (!await statusOf(this.#target)) await rename(this.path, this.#target);
    else if (this.#force) {
      // What is there may have come since the start.
      await refuseForeign(this.#target, this.#kind);
      await swapIn(this.path, this.#target, sibling(this.#target, "replaced", this.#suffix));
    } else throw existing(this.#target);
    await syncDirectory(dirname(this.#target));
    releaseSuffix(this.#suffix);
  }

  async discard(): Promise<void> {
    await withFileErrors("remove", this.path, () => fs.rm(this.path, { recursive: true, force: true }));
    releaseSuffix(this.#suffix);
  }
}

/**
 * Puts `path` in the place of `target`, which waits under the name `aside` meanwhile: it is put back if the new one
 * cannot take its place, and removed when it has.
 */
export async function swapIn(path: string, target: string, aside: string, move = rename): Promise<void> {
  await move(target, aside);
  try {
    await move(path, target);
  } catch (error) {
    await move(aside, target);
    throw error;
  }
  await syncDirectory(dirname(target));
  await remove(aside);
}

function rename(from: string, to: string): Promise<void> {
  return withFileErrors("rename onto", to, () => fs.rename(from, to));
}

function sibling(target: string, kind: "partial" | "replaced", suffix: string): string {
  return join(dirname(target), `.${basename(target)}.${kind}-${suffix}`);
}

async function recoverFromKilledRuns(target: string): Promise<void> {
  const parent = dirname(target);
  const names = await withFileErrors("list", parent, () => fs.readdir(parent));
  for (const name of abandoned(names, `.${basename(target)}.replaced-`)) {
    // Killed between moving the old target aside and renaming the new one: the old one is still the valid one.
    const aside = join(parent, name);
    if (await statusOf(target)) await remove(aside);
    else await rename(aside, target);
  }
  for (const name of abandoned(names, `.${basename(target)}.partial-`)) await remove(join(parent, name));
}

function abandoned(names: readonly string[], prefix: string): string[] {
  return names.filter((name) => name.startsWith(prefix) && isAbandoned(name.slice(prefix.length))).sort();
}

/** What another process that runs is filling for the same target. */
async function otherStaging(target: string, own: string): Promise<string | undefined> {
  const absolute = resolve(target);
  const parent = dirname(absolute);
  const prefix = `.${basename(absolute)}.partial-`;
  const names = await withFileErrors("list", parent, () => fs.readdir(parent));
  const other = names.find((name) =>
    name.startsWith(prefix) && isHeld(name.slice(prefix.length)) && join(parent, name) !== own
  );
  return other && join(parent, other);
}

function remove(path: string): Promise<void> {
  return withFileErrors("remove", path, () => fs.rm(path, { recursive: true, force: true }));
}

async function refuseExisting(target: string): Promise<void> {
  if (await statusOf(target)) throw existing(target);
}

function existing(target: string): FormatError {
  return new FormatError(
    "target_exists",
    `${target} exists already`,
    "Give another output, or add --force to replace it.",
    target,
  );
}

async function statusOf(path: string): Promise<Stats | undefined> {
  try {
    return await fs.lstat(path);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    return await withFileErrors("look at", path, () => Promise.reject(error));
  }
}

async function syncTree(path: string): Promise<void> {
  const status = await withFileErrors("look at", path, () => fs.lstat(path));
  if (status.isDirectory()) {
    for (const name of await fs.readdir(path)) await syncTree(join(path, name));
    await syncDirectory(path);
  } else if (status.isFile()) {
    const file = await RandomAccessFile.open(path, "update");
    try {
      await file.sync();
    } finally {
      file.close();
    }
  }
}
