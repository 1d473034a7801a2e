import { join } from "node:path";

/** Commands that exist through `deno task` but not through `npm run`, or the other way round. */
export async function compareScripts(root: string): Promise<string[]> {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(root, "deno.json"))) as {
    tasks: Record<string, unknown>;
  };
  const { scripts } = JSON.parse(await Deno.readTextFile(join(root, "package.json"))) as {
    scripts: Record<string, string>;
  };
  const missing = Object.keys(tasks).filter((name) => scripts[name] !== `deno task ${name}`)
    .map((name) => `package.json: the script "${name}" must be "deno task ${name}"`);
  const orphaned = Object.entries(scripts)
    .filter(([name, text]) => text.startsWith("deno task ") && !(name in tasks))
    .map(([name]) => `package.json: the script "${name}" calls a task that deno.json does not have`);
  return [...missing, ...orphaned];
}
