import { access, constants } from "node:fs/promises";
import { isAbsolute, join, relative, resolve } from "node:path";
import { ServerError } from "../errors.ts";

/** Where everything that the server keeps lies; nothing is read or written elsewhere but the models' folder. */
export interface DataFolder {
  readonly path: string;
  readonly database: string;
  /** Uploads on their way; whatever lies here at the start was left by a killed server. */
  readonly incoming: string;
  /** A folder for each adapter, named by its id. */
  readonly adapters: string;
  /** A file for each calibration text, named by its id. */
  readonly calibrations: string;
  /** A folder for each merge, named by its id. */
  readonly merges: string;
  readonly token: string;
}

/** What keeps a path from being the data folder, by the system's code. */
const REASONS: Readonly<Record<string, string>> = {
  EEXIST: "it is a file",
  ENOTDIR: "a part of the path is a file",
  ENOENT: "nothing can be made there",
  EACCES: "this user may not write there",
  EPERM: "this user may not write there",
  EROFS: "the disk can only be read",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  ENAMETOOLONG: "the name is too long",
};

/** The refusal of a path as the data folder, for what the system said; other errors stay what they are. */
export function unusableData(path: string, error: unknown): unknown {
  const reason = REASONS[String((error as { readonly code?: unknown } | null)?.code)];
  return reason === undefined ? error : dataRefused(path, reason);
}

/** The refusal of a path as the data folder. */
export function dataRefused(path: string, reason: string): ServerError {
  return new ServerError(
    400,
    "data_unusable",
    `${path} cannot be the data folder: ${reason}; expected a folder that this user may write in, or a place for one`,
    "name another folder, such as --data .loom-data",
    path,
  );
}

/**
 * Makes the data folder and what belongs in it, for this user alone.
 *
 * @throws {ServerError} `data_unusable`
 */
export async function openDataFolder(path: string): Promise<DataFolder> {
  const root = resolve(path);
  try {
    return await makeDataFolder(root);
  } catch (error) {
    throw unusableData(root, error);
  }
}

async function makeDataFolder(root: string): Promise<DataFolder> {
  await Deno.mkdir(root, { recursive: true, mode: 0o700 });
  await access(root, constants.R_OK | constants.W_OK | constants.X_OK);
  const folder: DataFolder = {
    path: root,
    database: join(root, "loom.sqlite"),
    incoming: join(root, "incoming"),
    adapters: join(root, "adapters"),
    calibrations: join(root, "calibrations"),
    merges: join(root, "merges"),
    token: join(root, "token"),
  };
  for (const part of [folder.incoming, folder.adapters, folder.calibrations, folder.merges]) {
    await Deno.mkdir(part, { recursive: true, mode: 0o700 });
  }
  return folder;
}

/** Removes everything in `folder` that `keep` does not name: what a killed server left behind. */
export async function sweep(folder: string, keep: ReadonlySet<string>): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    if (!keep.has(name)) await Deno.remove(join(folder, name), { recursive: true });
  }
}

/** Whether a path is strictly below a folder; both absolute, links resolved by the caller. */
export function isInside(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== "" && !way.startsWith("..") && !isAbsolute(way);
}

/** Hides the folders' own paths in a text for clients: they see `adapters/3f…/adapter_config.json`. */
export function pathHider(folders: readonly string[]): (text: string) => string {
  const prefixes = folders.filter((folder) => folder !== "").flatMap((folder) => [`${folder}/`, folder])
    .sort((a, b) => b.length - a.length);
  return (text) => prefixes.reduce((shown, prefix) => shown.replaceAll(prefix, ""), text);
}
