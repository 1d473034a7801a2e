import { dirname, join } from "node:path";

/** Writes `files` (path to text) into a new folder that is removed after `body`. */
export async function withTemporaryWorkspace(
  files: Readonly<Record<string, string>>,
  body: (root: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.realPath(await Deno.makeTempDir({ prefix: "lora-loom-" }));
  try {
    for (const [path, text] of Object.entries(files)) {
      await Deno.mkdir(dirname(join(root, path)), { recursive: true });
      await Deno.writeTextFile(join(root, path), text);
    }
    await body(root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

/** A root `deno.json` and one `deno.json` per member, named `@lora-loom/…` after its folder, with `src/mod.ts`. */
export function memberManifests(
  paths: readonly string[],
  imports: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const files: Record<string, string> = { "deno.json": JSON.stringify({ workspace: paths, imports }) };
  for (const path of paths) {
    const name = `@lora-loom/${path.split("/").at(-1)}`;
    files[`${path}/deno.json`] = JSON.stringify({ name, version: "0.1.0", exports: "./src/mod.ts" });
  }
  return files;
}
