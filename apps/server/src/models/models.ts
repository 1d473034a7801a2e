import { join } from "node:path";
import { shown } from "../adapters/upload_paths.ts";
import { ServerError } from "../errors.ts";

/** A base model that calibrated methods can run. */
export interface Model {
  /** Its folder, relative to the models' folder: what a recipe names. */
  readonly name: string;
}

/** Levels of folders that are looked through, as in `ORGANISATION/MODEL`. */
const DEPTH = 3;

/**
 * Refuses what cannot be a models' folder.
 *
 * @throws {ServerError} `models_unusable`
 */
export async function checkModelsFolder(path: string): Promise<void> {
  const reason = await unreadable(path);
  if (reason === undefined) return;
  throw new ServerError(
    400,
    "models_unusable",
    `${path} cannot be the models' folder: ${reason}; expected a folder of Hugging Face model folders`,
    "write --models DIR with such a folder, or leave --models out where no method is to run a base model",
    path,
  );
}

/** Why a folder cannot be listed; undefined where it can. */
async function unreadable(path: string): Promise<string | undefined> {
  try {
    for await (const _ of Deno.readDir(path)) break;
    return undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "there is nothing of that name";
    if (error instanceof Deno.errors.NotADirectory) return "it is a file";
    return (error as Error).message;
  }
}

/** The base models in the folder that the server was started with. */
export class Models {
  /** @param folder undefined where none was given: then there is no model */
  constructor(private readonly folder: string | undefined) {}

  /** Every folder with a `config.json`, sorted. Links are not followed out of the models' folder. */
  async list(): Promise<Model[]> {
    const names: string[] = [];
    if (this.folder !== undefined) await collect(this.folder, "", DEPTH, names);
    return names.sort().map((name) => ({ name }));
  }

  /**
   * The absolute path of a model. Only what {@linkcode list} gives has one, whatever a name looks like.
   *
   * @throws {ServerError} `no_models`, `unknown_model`
   */
  async path(name: string): Promise<string> {
    if (this.folder === undefined) {
      throw new ServerError(
        422,
        "no_models",
        "the server was started without base models",
        "start it with --models DIR, a folder of Hugging Face model folders",
        "base_model",
      );
    }
    const names = (await this.list()).map((model) => model.name);
    if (names.includes(name)) return join(this.folder, name);
    throw new ServerError(
      422,
      "unknown_model",
      `there is no model ${shown(name)}; known: ${names.join(", ") || "none"}`,
      "name one of GET /api/models",
      "base_model",
    );
  }
}

async function collect(folder: string, prefix: string, depth: number, names: string[]): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (!isDirectory || name.startsWith(".")) continue;
    const path = join(folder, name);
    if (await isModel(path)) names.push(prefix + name);
    else if (depth > 1) await collect(path, `${prefix}${name}/`, depth - 1, names);
  }
}

async function isModel(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(join(path, "config.json"))).isFile;
  } catch {
    return false;
  }
}
