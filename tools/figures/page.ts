import { dirname, join } from "node:path";
import type { Results } from "./results.ts";
import { TABLES } from "./tables.ts";

/** The page that is made from measured figures. */
export const PAGE = "docs/benchmarks.md";

/** What stands between `<!-- measured FILE TABLE -->` and `<!-- end -->`; FILE is relative to the page. */
const SECTION = /^<!-- measured (\S+) (\S+) -->\n[\s\S]*?^<!-- end -->$/gm;

/** A marker that the expression above did not pair. */
const MARKER = /^<!-- (?:measured .*|end) -->$/m;

/** A page whose markers cannot be followed. */
export class PageError extends Error {}

/**
 * The page with everything between its markers made anew from results; the prose around them stays.
 *
 * @param read gives the results in a file that a marker names
 * @throws {PageError} when a marker has no end, or names a table that does not exist
 */
export function renewPage(page: string, read: (file: string) => Results): string {
  const unpaired = MARKER.exec(page.replace(SECTION, ""));
  if (unpaired) {
    throw new PageError(
      `${unpaired[0]} stands alone; expected <!-- measured FILE TABLE -->, what was measured, <!-- end -->`,
    );
  }
  return page.replace(SECTION, (_, file: string, name: string) => {
    const table = TABLES[name];
    if (!table) {
      throw new PageError(`there is no table ${name}; there are ${Object.keys(TABLES).join(", ")}`);
    }
    return `<!-- measured ${file} ${name} -->\n${table(read(file))}\n<!-- end -->`;
  });
}

/** {@linkcode renewPage} of the file at `path`, from the results beside it. */
export async function renewFile(path: string): Promise<{ readonly before: string; readonly after: string }> {
  const before = await Deno.readTextFile(path);
  const read = (file: string) => JSON.parse(Deno.readTextFileSync(join(dirname(path), file))) as Results;
  return { before, after: renewPage(before, read) };
}
