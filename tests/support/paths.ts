import { fileURLToPath } from "node:url";

/** The path of a `file:` address. */
export const fromFileUrl: (url: URL) => string = fileURLToPath;

/** Absolute path of something in the repository. */
export function repositoryPath(path: string): string {
  return fromFileUrl(new URL(`../../${path}`, import.meta.url));
}

/** Runs `body` with an empty folder that is removed afterwards. */
export async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "loom-test-" });
  try {
    return await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
