import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** Root of this workspace. */
export const ROOT: string = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** A member as its `deno.json` describes it. */
export interface Member {
  readonly path: string;
  readonly name: string;
}

const SOURCE = /\.[mc]?[jt]sx?$/;
const NOT_OURS = new Set(["node_modules", ".git", ".nx", ".cache", "fixtures", "dist"]);

/** The members that the root `deno.json` lists, in its order. */
export function readMembers(root: string): Member[] {
  const { workspace } = JSON.parse(Deno.readTextFileSync(join(root, "deno.json"))) as { workspace: string[] };
  return workspace.map((entry) => {
    const path = entry.replace(/^\.\//, "").replace(/\/$/, "");
    const { name } = JSON.parse(Deno.readTextFileSync(join(root, path, "deno.json"))) as { name: string };
    return { path, name };
  });
}

/** The member that a file of the workspace belongs to: the deepest folder that holds it. */
export function memberOf<M extends { readonly path: string }>(
  file: string,
  members: readonly M[],
): M | undefined {
  return members.filter(({ path }) => file === path || file.startsWith(`${path}/`))
    .sort((a, b) => b.path.length - a.path.length)[0];
}

/** Files under `folder` that `wanted` accepts, as paths from `root` with forward slashes, sorted. */
export function listFiles(root: string, folder: string, wanted: (path: string) => boolean): string[] {
  const files: string[] = [];
  const walk = (directory: string) => {
    for (const entry of Deno.readDirSync(directory)) {
      const path = join(directory, entry.name);
      if (entry.isDirectory && !NOT_OURS.has(entry.name)) walk(path);
      else if (entry.isFile) {
        const fromRoot = relative(root, path).replaceAll(sep, "/");
        if (wanted(fromRoot)) files.push(fromRoot);
      }
    }
  };
  walk(join(root, folder));
  return files.sort();
}

/** Every source file of every member. */
export function listSources(root: string, members: readonly Member[]): string[] {
  const files = members.flatMap(({ path }) => listFiles(root, path, (file) => SOURCE.test(file)));
  return [...new Set(files)].sort();
}
