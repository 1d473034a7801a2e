/**
 * Checks that the members of the workspace import only what `tools/house/arrows.ts` allows.
 *
 *     deno run -A tools/boundaries.ts [ROOT]
 */
import { HOUSE } from "./house/arrows.ts";
import { readImports } from "./house/imports.ts";
import { findViolations, type Violation } from "./house/violations.ts";
import { readMembers, ROOT } from "./house/workspace.ts";

/** Every violation in the workspace at `root`, members that have no room included. */
export async function checkBoundaries(root: string): Promise<Violation[]> {
  const members = readMembers(root);
  const homeless = members.filter(({ path }) => !HOUSE.rooms.some((room) => room.path === path));
  return [
    ...homeless.map(({ path }): Violation => ({
      rule: "unknown_room",
      where: `${path}/deno.json`,
      message: `${path} is in no room of the house; add it to tools/house/arrows.ts`,
    })),
    ...findViolations(await readImports(root, members), HOUSE),
  ];
}

if (import.meta.main) {
  const violations = await checkBoundaries(Deno.args[0] ?? ROOT);
  for (const { where, rule, message } of violations) console.error(`${where}: ${rule}: ${message}`);
  if (violations.length > 0) Deno.exit(1);
  console.log("every import keeps to the arrows");
}
