import { basename, join } from "node:path";
import { runCommand } from "./command.ts";
import { SetupError } from "./errors.ts";

/** A shared library and every library it needs, directly or not: name to path, the path absent where none was found. */
export type Needs = ReadonlyMap<string, string | undefined>;

/** Reads what `ldd` prints. The dynamic linker itself and the kernel's own library are left out. */
export function parseLdd(text: string): Needs {
  const needs = new Map<string, string | undefined>();
  for (const [, name, path] of text.matchAll(/^\s+(\S+) => (not found|\/.*?)(?: \(0x[0-9a-f]+\))?$/gm)) {
    needs.set(name!, path === "not found" ? undefined : path);
  }
  return needs;
}

/** What `library` needs when libraries are looked for in `folders` first. */
async function needsOf(library: string, folders: readonly string[]): Promise<Needs> {
  const env = { LD_LIBRARY_PATH: folders.join(":") };
  return parseLdd(await runCommand(["ldd", library], { env, timeout: 30_000 }));
}

/** A library to take along. */
export interface Wanted {
  /** The name other libraries know it by. */
  readonly name: string;
  readonly path: string;
}

/**
 * The libraries under `folders` that `roots` need, dependencies first, `roots` included.
 *
 * @throws {SetupError} `driver_incomplete` where a library is found neither there nor on the system
 */
export async function collectLibraries(
  roots: readonly string[],
  folders: readonly string[],
): Promise<Wanted[]> {
  const found = new Map<string, { wanted: Wanted; size: number }>();
  const visit = async (name: string, path: string) => {
    if (found.has(name)) return;
    const needs = await needsOf(path, folders);
    found.set(name, { wanted: { name, path }, size: needs.size });
    for (const [needed, where] of needs) {
      if (where === undefined) {
        throw new SetupError(
          "driver_incomplete",
          `${
            basename(path)
          } needs ${needed}, which is neither on this machine nor among the fetched packages`,
          "install Mesa's Vulkan drivers from your distribution's packages",
          path,
        );
      }
      if (folders.some((folder) => where.startsWith(`${folder}/`))) await visit(needed, where);
    }
  };
  for (const path of roots) await visit(basename(path), path);
  // What a library needs includes all that its dependencies need, so they come first when sorted by that count.
  return [...found.values()].sort((a, b) => a.size - b.size).map(({ wanted }) => wanted);
}

/** Folders under `root` that hold shared libraries. */
export function libraryFolders(root: string): string[] {
  const folders: string[] = [];
  const walk = (folder: string) => {
    const entries = [...Deno.readDirSync(folder)];
    if (entries.some(({ name }) => /\.so(?:\.|$)/.test(name))) folders.push(folder);
    for (const entry of entries) if (entry.isDirectory) walk(join(folder, entry.name));
  };
  walk(root);
  return folders;
}
